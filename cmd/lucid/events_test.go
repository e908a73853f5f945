package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// runEvents runs a fake container and `events` for it, and kills the container after some time. It returns what was printed.
func runEvents(t *testing.T, prefix, interval string, after time.Duration) (id string, lines []string) {
	t.Helper()
	p, dir := newLucid(t), bundle(t)
	id = fmt.Sprintf("%sevents-%d", prefix, os.Getpid())
	if err := p.bring(t, dir, id, "running"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--root", p.root, "events", "--interval", interval, id)
	cmd.Args[0], cmd.Env = "lucid", append(os.Environ(), "LUCID_TEST_MAIN=1")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	time.Sleep(after) // it prints; when is not seen
	if text, code := p.message(t, dir, "kill", id, "KILL"); code != 0 {
		t.Error(text)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
	return id, strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// TestEvents: OOM kills are told when they happen, not with the next counters, and the end of the container is the command's.
func TestEvents(t *testing.T) {
	id, lines := runEvents(t, fakePrefix, "1h", 500*time.Millisecond)
	if len(lines) != 2 || !strings.HasPrefix(lines[0], `{"type":"stats","id":"`+id) || lines[1] != `{"type":"oom","id":"`+id+`"}` {
		t.Errorf("%q", lines)
	}
}

// TestEventsFlood: a guest that tells of OOM kills all the time is printed now and then, and at last when the container has ended.
func TestEventsFlood(t *testing.T) {
	begin := time.Now()
	id, lines := runEvents(t, floodPrefix, "10ms", 2500*time.Millisecond)
	took := time.Since(begin)
	n := 0
	for _, l := range lines {
		if l == `{"type":"oom","id":"`+id+`"}` {
			n++
		}
	}
	if most := 2 + int(took/runtime.OOMInterval); n < 2 || n > most || !strings.HasPrefix(lines[len(lines)-1], `{"type":"oom"`) {
		t.Errorf("%d OOM kills in %v, want 2 to %d; at last %s", n, took, most, lines[len(lines)-1])
	}
}
