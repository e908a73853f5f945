// Package ownmem gives memory of the process itself back to the host: that of the programs that live as long as a container
// does, most of the time idle.
package ownmem

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim gives back what only the start needed: garbage, and pages of the
// program that will not run again for hours. Those are clean pages of a file:
// what is needed after all comes back from the page cache. Half of a
// process's private memory is such pages.
func Trim() {
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
