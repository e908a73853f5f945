//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRealLifecycle walks create, state, start, kill, delete and list as containerd's shim does.
func TestRealLifecycle(t *testing.T) {
	b := newBundle(t, "sh", "-c", "trap 'exit 7' TERM; echo started; while :; do sleep 0.1; done")
	b.spec.Annotations = map[string]string{"org.example.k": "v"}
	b.write()
	pidFile := filepath.Join(b.dir, "pid")
	out, err := os.Create(filepath.Join(b.dir, "out"))
	must(t, err)
	create := command(t, "create", "--bundle", b.dir, "--pid-file", pidFile, b.id)
	create.Stdout, create.Stderr = out, out
	must(t, create.Run())
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id) })
	must(t, out.Close())

	pid, err := os.ReadFile(pidFile)
	must(t, err)
	state := containerState(t, b.id)
	if state.Status != "created" || strconv.Itoa(state.Pid) != string(pid) || state.Bundle != b.dir || state.Annotations["org.example.k"] != "v" {
		t.Errorf("state %+v, pid file %q", state, pid)
	}
	r := lucid(t, nil, "create", "--bundle", b.dir, b.id)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "container with given ID already exists")
	lucid(t, nil, "start", b.id).wantCode(t, 0)
	if s := containerState(t, b.id); s.Status != "running" {
		t.Errorf("status %q after start", s.Status)
	}
	wantContains(t, lucid(t, nil, "start", b.id).stderr, "cannot start an already running container")
	wantContains(t, lucid(t, nil, "delete", b.id).stderr, "cannot delete container "+b.id+" that is not stopped: running")
	wantContains(t, lucid(t, nil, "list").stdout, b.id, "running")
	waitFor(t, "the container's first output", func() bool {
		data, err := os.ReadFile(out.Name())
		return err == nil && strings.Contains(string(data), "started\n")
	})
	lucid(t, nil, "kill", b.id).wantCode(t, 0)
	waitFor(t, "stopped", func() bool { return containerState(t, b.id).Status == "stopped" })
	wantContains(t, lucid(t, nil, "kill", b.id).stderr, "container not running")
	lucid(t, nil, "delete", b.id).wantCode(t, 0)
	wantContains(t, lucid(t, nil, "state", b.id).stderr, "container does not exist")
	wantNoProcesses(t, b.id)
}

type state struct {
	Status, Bundle string
	Pid            int
	Annotations    map[string]string
}

func containerState(t *testing.T, id string) state {
	t.Helper()
	r := lucid(t, nil, "state", id)
	r.wantCode(t, 0)
	var s state
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatalf("state: %v\n%s", err, r.stdout)
	}
	return s
}

// waitFor polls: the test's own business, nothing in lucid does.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	waitLong(t, what, 2*time.Minute, ok)
}

func waitLong(t *testing.T, what string, most time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(most); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, most)
		}
	}
}

// TestRealTimeline: every mark is there and in order; hardware KVM needs no assist.
func TestRealTimeline(t *testing.T) {
	b := newBundle(t, "echo", "hello")
	b.write()
	r := lucid(t, nil, "--debug", "run", "--bundle", b.dir, b.id)
	r.wantCode(t, 0)
	r.wantStdout(t, "hello\n")
	at := -1
	for _, mark := range []string{"spawn", "vm_created", "kernel_entry", "agent_hello", "created", "started", "exited"} {
		i := strings.Index(r.stderr, "\n  "+mark+" ")
		if i <= at {
			t.Errorf("mark %s is missing or out of order in:\n%s", mark, r.stderr)
		}
		at = i
	}
}

// TestVCPUsAndMemory: sizes from config.json and annotations reach the guest.
func TestVCPUsAndMemory(t *testing.T) {
	for _, n := range []int{1, 2, 8} {
		b := newBundle(t, "sh", "-c", "nproc; grep MemTotal /proc/meminfo")
		b.spec.Annotations = map[string]string{"lucid.vcpus": strconv.Itoa(n), "lucid.memory": "512MiB"}
		r := b.run(nil)
		r.wantCode(t, 0)
		f := strings.Fields(r.stdout)
		if len(f) != 4 || f[0] != strconv.Itoa(n) {
			t.Errorf("with %d vCPUs: %q", n, r.stdout)
			continue
		}
		if kib, err := strconv.Atoi(f[2]); err != nil || kib < 440<<10 || kib > 512<<10 {
			t.Errorf("MemTotal %q KiB, want a little under 524288", f[2])
		}
	}
}

// TestTwentyAtOnce: so many VMs live side by side, each with its own files, and leave nothing.
func TestTwentyAtOnce(t *testing.T) {
	const n = 20
	before := leftovers(t)
	t.Run("run", func(t *testing.T) {
		var all []*bundle
		for i := range n {
			b := newBundle(t, "sh", "-c", "cat /name >/copy; exec sleep 10000")
			must(t, os.WriteFile(filepath.Join(b.root, "name"), []byte(strconv.Itoa(i)), 0o644))
			b.write()
			leave(t, "run", "--detach", "--bundle", b.dir, b.id)
			t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0) })
			all = append(all, b)
		}
		for i, b := range all {
			waitFor(t, b.id+" to copy", func() bool {
				data, err := os.ReadFile(filepath.Join(b.root, "copy"))
				return err == nil && string(data) == strconv.Itoa(i)
			})
			if s := containerState(t, b.id); s.Status != "running" {
				t.Errorf("%s is %s", b.id, s.Status)
			}
		}
	})
	wantSame(t, before, leftovers(t))
}
