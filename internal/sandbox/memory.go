package sandbox

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// gcPercent is for the time after the start, for which the environment says
// otherwise (runtime.SandboxEnv): the process keeps little garbage.
const gcPercent = 25

// trim gives back what only the start needed: garbage, and pages of the
// program that will not run again for hours. Those are clean pages of a file:
// what is needed after all comes back from the page cache. Half of this
// process's private memory is such pages.
func trim() {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(math.MaxInt64)
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if start, end, ok := cleanMapping(lines.Text(), exe); ok {
			// An error leaves the pages where they are.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// cleanMapping parses a line of /proc/self/maps (proc(5)) and says whether it
// is a part of the program that cannot have been written to.
func cleanMapping(line, exe string) (start, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || strings.Join(fields[5:], " ") != exe {
		return 0, 0, false
	}
	if perms := fields[1]; len(perms) < 4 || perms[0] != 'r' || perms[1] != '-' {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(fields[0], "%x-%x", &start, &end); err != nil || end <= start {
		return 0, 0, false
	}
	return start, end, true
}

// logMemory tells --debug what the Go runtime holds.
func (s *sandbox) logMemory() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.log.Debug("memory", "heap", m.HeapInuse, "idle", m.HeapIdle-m.HeapReleased, "stacks", m.StackInuse,
		"runtime", m.MSpanSys+m.MCacheSys+m.GCSys+m.OtherSys, "live", m.HeapAlloc, "goroutines", runtime.NumGoroutine())
}
