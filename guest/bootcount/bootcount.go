package bootcount

// Param is the word on the kernel command line that asks for the report.
const Param = "lucid.count"

// Prefix begins the line that Report writes; a decimal number follows.
const Prefix = "lucid.count tsc="

// TSC reads the time stamp counter.
func TSC() uint64

// Report reads the counter, then writes one line. All work comes after the
// reading, so it is not counted.
func Report(w interface{ Write([]byte) (int, error) }) error {
	n := TSC()
	// By hand: strconv would be the only import.
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			break
		}
	}
	_, err := w.Write([]byte(Prefix + string(digits[i:]) + "\n"))
	return err
}
