package boot

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// countPrefix begins the line that `make count-boot` looks for; it agrees with
// guest/bootcount, which the agent may not import.
const countPrefix = "lucid.count tsc="

// tsc reads the time stamp counter: under -icount the number of instructions
// since the machine began.
func tsc() uint64

// ReportCount writes the counter to the console. All work comes after the
// reading, so it is not counted.
func ReportCount() {
	n := tsc()
	line := strconv.AppendUint([]byte(countPrefix), n, 10)
	_, _ = unix.Write(2, append(line, '\n'))
}
