package gomonitor

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// batch has the threads with SCHED_BATCH.
func batch(t *testing.T) (all []int) {
	t.Helper()
	threads, err := os.ReadDir(tasks)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range threads {
		tid, err := strconv.Atoi(d.Name())
		if err != nil {
			t.Fatal(err)
		}
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil && attr.Policy == unix.SCHED_BATCH {
			all = append(all, tid)
		}
	}
	return all
}

// TestQuiet: one thread waits for its turn, and not the one that runs the
// program; and none afterwards.
func TestQuiet(t *testing.T) {
	if now := batch(t); len(now) != 0 {
		t.Fatalf("threads with SCHED_BATCH before the test: %v; run it by chrt --other 0", now)
	}
	Quiet()
	// The monitor may have started others since.
	if now := batch(t); len(now) == 0 || now[0] == os.Getpid() {
		t.Errorf("threads with SCHED_BATCH: %v; the process is %d", now, os.Getpid())
	}
	Release()
	if now := batch(t); len(now) != 0 {
		t.Errorf("threads with SCHED_BATCH after Release: %v", now)
	}
}
