//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRealShim is as much of containerd with the shim as software KVM gets done in a minute: two containers. Other tests may run
// on this machine, so what is left is looked for by name.
func TestRealShim(t *testing.T) {
	d := newContainerd(t, &containerd{name: "real", bin: "/usr/bin"}, "apt-get install containerd")
	r := d.ctr(t, nil, d.run(t, "real1", []string{"--rm"}, "/bin/sh", "-c", "uname -r; echo oops >&2; exit 42")...)
	r.wantCode(t, 42)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	if strings.TrimSpace(r.stdout) == "" || strings.Contains(r.stdout, strings.TrimSpace(string(release))) {
		t.Errorf("stdout %q; the host's kernel is %s", r.stdout, release)
	}
	wantContains(t, r.stderr, "oops\n")
	d.wantEvents(t, "real1", "create", "start", "exit", "delete")
	wantNoProcesses(t, "real1")

	d.background(t, "real2", nil, "/bin/sleep", "1000")
	r = d.ctr(t, nil, "task", "exec", "--exec-id", "e1", "real2", "/bin/sh", "-c", "echo in $(cat /proc/1/comm); exit 5")
	r.wantCode(t, 5)
	r.wantStdout(t, "in sleep\n")
	pid, _ := d.status(t, "real2")
	shims := shimPids(t, "real2")
	if len(shims) != 1 {
		t.Fatalf("shims %v, want one", shims)
	}
	bundle := filepath.Join(d.dir, "state/io.containerd.runtime.v2.task/e2e/real2")
	address, err := os.ReadFile(filepath.Join(bundle, "address"))
	must(t, err)
	must(t, exec.Command("kill", "-9", shims[0]).Run())
	d.await(t, "real2", "")
	d.wantEvents(t, "real2", "create", "start", "exec-added", "exec-started", "exit", "exit", "delete")
	left := []string{"/proc/" + pid, bundle, "/run/containerd/lucid/e2e/real1", "/run/containerd/lucid/e2e/real2", strings.TrimPrefix(string(address), "unix://")}
	for begin := time.Now(); len(left) > 0; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Lstat(left[0]); os.IsNotExist(err) {
			left = left[1:]
		} else if time.Since(begin) > 20*time.Second {
			t.Fatalf("left: %v", left)
		}
	}
	wantNoProcesses(t, "real2")
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if strings.Contains(string(mounts), bundle) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
}
