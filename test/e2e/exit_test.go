//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRealHello(t *testing.T) {
	b := newBundle(t, "sh", "-c", `. /etc/os-release; echo "$PRETTY_NAME"; uname -s; id -u; pwd; hostname`)
	r := b.run(nil)
	r.wantCode(t, 0)
	r.wantStdout(t, "Debian GNU/Linux 12 (bookworm)\nLinux\n0\n/\nlucid\n")
}

func TestRealExitCode(t *testing.T) {
	r := newBundle(t, "sh", "-c", "exit 42").run(nil)
	r.wantCode(t, 42)
	r.wantStdout(t, "")
	if r.stderr != "" {
		t.Errorf("stderr %q, want nothing", r.stderr)
	}
}

func TestRealStreamsApart(t *testing.T) {
	r := newBundle(t, "sh", "-c", "echo out; echo err >&2; exit 3").run(nil)
	r.wantCode(t, 3)
	r.wantStdout(t, "out\n")
	if r.stderr != "err\n" {
		t.Errorf("stderr %q, want %q", r.stderr, "err\n")
	}
}

func TestRealStdinCloses(t *testing.T) {
	r := newBundle(t, "sh", "-c", "cat; echo end").run(strings.NewReader("one\ntwo"))
	r.wantCode(t, 0)
	r.wantStdout(t, "one\ntwoend\n")
}

// TestRealKill: SIGKILL from outside is 137, as a shell reports it.
func TestRealKill(t *testing.T) {
	b := newBundle(t, "sh", "-c", "echo up; sleep 1000")
	b.write()
	cmd := command(t, "run", "--bundle", b.dir, b.id)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	must(t, cmd.Start())
	line := make([]byte, 3)
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatalf("no output: %v\n%s", err, errs.String())
	}
	lucid(t, nil, "kill", b.id, "KILL").wantCode(t, 0)
	if code := exitCode(t, cmd.Wait()); code != 137 {
		t.Errorf("exit code %d, want 137\n%s", code, errs.String())
	}
}

// TestSelfSignal: a process that a signal ends gives 128 + its number.
func TestSelfSignal(t *testing.T) {
	// A pid namespace's first process ignores signals it has no handler for, as under runc: so its child dies.
	for sig, want := range map[string]int{"TERM": 143, "SEGV": 139, "KILL": 137} {
		newBundle(t, "sh", "-c", fmt.Sprintf(`sh -c 'kill -%s $$'`, sig)).run(nil).wantCode(t, want)
	}
}

const megabytes64 = 64 << 20

func TestStdin64MiB(t *testing.T) {
	data := make([]byte, megabytes64)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	r := newBundle(t, "sha256sum").run(bytes.NewReader(data))
	r.wantCode(t, 0)
	r.wantStdout(t, hex.EncodeToString(sum[:])+"  -\n")
	t.Logf("64 MiB in, %v with start and end", r.took.Round(time.Millisecond))
}

func TestStdout64MiB(t *testing.T) {
	data := make([]byte, megabytes64)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	b := newBundle(t, "cat", "/blob")
	must(t, os.WriteFile(filepath.Join(b.root, "blob"), data, 0o644))
	r := b.run(nil)
	r.wantCode(t, 0)
	if len(r.stdout) != megabytes64 || r.stdout != string(data) {
		t.Errorf("%d bytes arrived of %d, or not the same", len(r.stdout), megabytes64)
	}
	t.Logf("64 MiB out, %v with start and end", r.took.Round(time.Millisecond))
}

// TestNothingLeft: after a run there is no state directory of the container.
func TestNothingLeft(t *testing.T) {
	b := newBundle(t, "true")
	b.run(nil).wantCode(t, 0)
	if _, err := os.Stat(filepath.Join(world.state, b.id)); !os.IsNotExist(err) {
		t.Errorf("state of %s is still there: %v", b.id, err)
	}
	r := lucid(t, nil, "state", b.id)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "does not exist")
}
