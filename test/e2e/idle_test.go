//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestIdleWakeups: a container that sleeps lets the host sleep. What is counted are the times that any thread of its
// process has gone to sleep again.
func TestIdleWakeups(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	leave(t, "run", "--detach", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0) })
	pid := containerState(t, b.id).Pid
	const window, most = 10 * time.Second, 20
	n := most + 1
	for i := 0; i < 4 && n > most; i++ { // the tidying up after the start, which a slow start delays, is in the first or second
		before := sleeps(t, pid)
		time.Sleep(window)
		n = sleeps(t, pid) - before
		t.Logf("%d wake-ups in %v", n, window)
	}
	if n > most {
		t.Errorf("an idle container wakes its host %d times in %v, want at most %d", n, window, most)
	}
}

// sleeps counts how often the threads of a process went to sleep.
func sleeps(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	for _, f := range files {
		data, err := os.ReadFile(f)
		must(t, err)
		_, rest, _ := strings.Cut(string(data), "\nvoluntary_ctxt_switches:")
		first, _, _ := strings.Cut(rest, "\n")
		v, err := strconv.Atoi(strings.TrimSpace(first))
		must(t, err)
		n += v
	}
	return n
}
