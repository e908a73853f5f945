//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// podman is Debian 12's podman 4.3 with its conmon, and storage of the test's own.
type podman struct {
	flags []string
	// templates is the store from which containers have to begin; empty: they boot.
	templates string
}

func newPodman(t *testing.T, cgroups string) *podman {
	t.Helper()
	for _, name := range []string{"/usr/bin/podman", "/usr/bin/conmon"} {
		if _, err := os.Stat(name); err != nil {
			t.Fatalf("%v: apt-get install podman conmon crun", err)
		}
	}
	dir := filepath.Join(world.dir, "podman")
	must(t, os.MkdirAll(dir, 0o711))
	return &podman{flags: []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", cgroups, "--events-backend", "file", "--runtime", world.lucid,
	}}
}

func (p *podman) command(args ...string) []string {
	return append(p.flags[:len(p.flags):len(p.flags)], args...)
}

func (p *podman) run(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/podman", p.command(args...)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	r := finish(t, cmd, stdin)
	t.Logf("podman %s: %v", args[0], r.took.Round(100*time.Millisecond))
	return r
}

func (p *podman) must(t *testing.T, args ...string) string {
	t.Helper()
	r := p.run(t, nil, args...)
	r.wantCode(t, 0)
	return strings.TrimSpace(r.stdout)
}

// TestPodman: podman's commands on a root file system, without an image.
func TestPodman(t *testing.T) {
	testPodman(t, newPodman(t, "cgroupfs"))
}

func testPodman(t *testing.T, p *podman) {
	rootfs := func(t *testing.T) string { return newBundle(t).root }
	t.Run("Run", func(t *testing.T) {
		r := p.run(t, strings.NewReader("in\n"), "run", "-i", "--rm", "--network", "none", "--log-driver", "none", "--env", "A=1", "--user", "7", "--workdir", "/usr",
			"--rootfs", rootfs(t), "sh", "-c", "cat; echo $A $(id -u) $PWD; grep ^Seccomp: /proc/self/status; echo err >&2; exit 3")
		r.wantCode(t, 3)
		r.wantStdout(t, "in\n1 7 /usr\nSeccomp:\t2\n")
		wantContains(t, r.stderr, "err\n")
	})
	t.Run("NoSuchProgram", func(t *testing.T) {
		r := p.run(t, nil, "run", "--rm", "--network", "none", "--rootfs", rootfs(t), "nosuch")
		r.wantCode(t, 127)
		wantContains(t, r.stderr, "executable file not found in $PATH")
	})
	t.Run("Detached", func(t *testing.T) {
		root := rootfs(t)
		id := p.must(t, "run", "-d", "--network", "none", "--hostname", "box", "--pids-limit", "50", "--rootfs", root, "sh", "-c", "trap 'exit 9' TERM; echo started; sleep 1000 & wait")
		t.Cleanup(func() { p.run(t, nil, "rm", "-f", "-t", "0", id) })
		state := strings.Fields(p.must(t, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", id))
		if len(state) != 2 || state[0] != "running" {
			t.Fatalf("inspect: %q", state)
		}
		if clone := wantBegun(t, state[1], p.templates); clone != (p.templates != "") {
			t.Error("it was not seen to begin from a template")
		}
		r := p.run(t, strings.NewReader("x\n"), "exec", "-i", id, "sh", "-c", "cat; uname -n; cat /sys/fs/cgroup/pids.max; exit 5")
		r.wantCode(t, 5)
		r.wantStdout(t, "x\nbox\n50\n")
		p.run(t, nil, "exec", id, "nosuch").wantCode(t, 127)
		for begin := time.Now(); !strings.Contains(p.must(t, "logs", id), "started"); time.Sleep(200 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatal("no logs")
			}
		}
		p.must(t, "pause", id)
		if s := p.must(t, "inspect", "-f", "{{.State.Status}}", id); s != "paused" {
			t.Errorf("paused: %q", s)
		}
		p.must(t, "unpause", id)
		p.must(t, "stop", "-t", "60", id)
		if s := p.must(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id); s != "exited 9" {
			t.Errorf("stopped: %q", s)
		}
		p.must(t, "start", id)
		p.must(t, "kill", id)
		if s := p.must(t, "wait", id); s != "137" {
			t.Errorf("wait: %q", s)
		}
	})
	t.Run("Terminal", func(t *testing.T) {
		line := "/usr/bin/podman"
		for _, a := range p.command("run", "-it", "--rm", "--network", "none", "--rootfs", rootfs(t), "sh", "-c", "'"+sized+"'") {
			line += " " + a
		}
		out := inTerminal(t, fmt.Sprintf("stty rows 33 cols 101; %s; echo code $?", line))
		wantContains(t, out, "33 101\r\n", "terminal\r\n", "code 6\r\n")
	})
	t.Run("OOM", func(t *testing.T) {
		p.run(t, nil, "run", "--rm", "--network", "none", "--memory", "60m", "--rootfs", rootfs(t), "tail", "/dev/zero").wantCode(t, 137)
	})
	t.Run("NothingLeft", func(t *testing.T) {
		if ids := p.must(t, "ps", "-aq"); ids != "" {
			t.Errorf("containers are left: %s", ids)
		}
		wantNoSandbox(t)
	})
}
