package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestEvents: OOM kills are told when they happen, not with the next counters, and the end of the container is the command's.
func TestEvents(t *testing.T) {
	p, dir := newLucid(t), bundle(t)
	id := fmt.Sprintf("%sevents-%d", fakePrefix, os.Getpid())
	if err := p.bring(t, dir, id, "running"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--root", p.root, "events", "--interval", "1h", id)
	cmd.Args[0], cmd.Env = "lucid", append(os.Environ(), "LUCID_TEST_MAIN=1")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	time.Sleep(500 * time.Millisecond) // it prints; when is not seen
	if text, code := p.message(t, dir, "kill", id, "KILL"); code != 0 {
		t.Error(text)
	}
	err := cmd.Wait()
	lines := strings.Split(out.String(), "\n")
	if err != nil || len(lines) != 3 || !strings.HasPrefix(lines[0], `{"type":"stats","id":"`+id) || lines[1] != `{"type":"oom","id":"`+id+`"}` || lines[2] != "" {
		t.Errorf("%v: %q", err, lines)
	}
}
