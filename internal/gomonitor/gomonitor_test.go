package gomonitor

import (
	"os"
	"slices"
	"strconv"
	"testing"
)

// late has the threads with Quiet's slack.
func late(t *testing.T) (all []string) {
	t.Helper()
	threads, err := os.ReadDir(tasks)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range threads {
		if getSlack(d.Name()) == slack {
			all = append(all, d.Name())
		}
	}
	return all
}

// TestQuiet: one thread sleeps longer, and not the one that runs the program; and
// none afterwards.
func TestQuiet(t *testing.T) {
	if now := late(t); len(now) != 0 {
		t.Fatalf("threads with a slack of %s ns before the test: %v", slack, now)
	}
	Quiet()
	// The monitor may have started others since.
	if now, main := late(t), strconv.Itoa(os.Getpid()); len(now) == 0 || slices.Contains(now, main) {
		t.Errorf("threads with a slack of %s ns: %v; the process is %s; this needs CAP_SYS_NICE", slack, now, main)
	}
	Release()
	if now := late(t); len(now) != 0 {
		t.Errorf("threads with a slack of %s ns after Release: %v", slack, now)
	}
}
