package gomonitor

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestQuiet: one thread waits for its turn from then on, and not the one that
// runs the program.
func TestQuiet(t *testing.T) {
	Quiet()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var batch []int
	for _, d := range threads {
		tid, err := strconv.Atoi(d.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			continue // it has ended
		}
		if attr.Policy == unix.SCHED_BATCH {
			batch = append(batch, tid)
		}
	}
	if len(batch) != 1 || batch[0] == os.Getpid() {
		t.Fatalf("threads with SCHED_BATCH: %v of %d; the process is %d", batch, len(threads), os.Getpid())
	}
}
