package boot

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/kernfile"
)

// monitorSlack is by how much the sleeps of the agent's threads may be late, in
// nanoseconds: as long as the longest that Go's monitor sleeps.
const monitorSlack = 10_000_000

// QuietMonitor lets Go's monitor thread sleep longer than the 20 µs that it asks for
// while the agent works: it would be woken eighty times in the start of a container, for
// a fifth of the agent's instructions, and finds nothing to do. It takes a processor
// away from a system call that blocks while another goroutine waits; with one
// processor that is 10 ms late at most. Processes of containers get Linux's slack. A
// guest whose init has more already (tick_step=, guest/kernel/source.edits) keeps it.
func QuietMonitor() {
	if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || now >= monitorSlack {
		return
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		_ = kernfile.Write("/proc/"+t.Name()+"/timerslack_ns", itoa(monitorSlack)) // proc(5)
	}
}
