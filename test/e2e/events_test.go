//go:build e2e

package e2e

import (
	"bufio"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestEvents: `lucid events` tells an OOM kill when it happens, not with the next counters, and ends with the container.
func TestEvents(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	limit := int64(64 << 20)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	b.write()
	leave(t, "run", "-d", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0) })
	events := command(t, "events", "--interval", "1h", b.id)
	out, err := events.StdoutPipe()
	must(t, err)
	must(t, events.Start())
	lines := bufio.NewScanner(out)
	for _, want := range []string{`"type":"stats"`, `"type":"oom"`} {
		if want == `"type":"oom"` {
			lucid(t, nil, "exec", b.id, "tail", "/dev/zero").wantCode(t, 137)
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("%q, %v: want %s", lines.Text(), lines.Err(), want)
		}
	}
	lucid(t, nil, "kill", b.id, "KILL").wantCode(t, 0)
	for lines.Scan() {
		t.Errorf("one more: %s", lines.Text())
	}
	if code := exitCode(t, events.Wait()); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
