//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"
)

// TestRealDocker is as much of docker as software KVM gets done in a few minutes: two containers of a small image.
func TestRealDocker(t *testing.T) {
	d := emptyDocker(t, "cgroupfs")
	d.importImage(t, "./bin", "./lib", "./lib64", "./usr/bin/dash", "./usr/bin/sh", "./usr/bin/cat", "./usr/bin/sleep", "./usr/bin/uname", "./usr/lib64",
		"./usr/lib/x86_64-linux-gnu/libc.so.6", "./usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "./etc/passwd", "./etc/group")
	r := d.run(t, strings.NewReader("in\n"), oneOff("-i", dockerImage, "sh", "-c", "uname -r; cat; echo oops >&2; exit 42")...)
	r.wantCode(t, 42)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	if !strings.HasSuffix(r.stdout, "\nin\n") || strings.Contains(r.stdout, strings.TrimSpace(string(release))) {
		t.Errorf("stdout %q; the host's kernel is %s", r.stdout, release)
	}
	wantContains(t, r.stderr, "oops\n")

	id := d.must(t, "run", "-d", "--network", "none", dockerImage, "sleep", "1000000")
	r = d.run(t, nil, "exec", id, "sh", "-c", "echo in $(cat /proc/1/comm); exit 5")
	r.wantCode(t, 5)
	r.wantStdout(t, "in sleep\n")
	if s := d.must(t, "inspect", "-f", "{{.State.Status}}", id); s != "running" {
		t.Errorf("inspect: %s", s)
	}
	d.must(t, "kill", id)
	if s := d.must(t, "wait", id); s != "137" {
		t.Errorf("wait: %s, want 137", s)
	}
	d.must(t, "rm", id)
	wantNoProcesses(t, id)
}
