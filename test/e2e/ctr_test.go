//go:build e2e

package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ctr is containerd's own client, with a containerd of the test's own.
type ctr struct {
	dir, socket string
}

func newCtr(t *testing.T) *ctr {
	t.Helper()
	c := &ctr{dir: filepath.Join(world.dir, "containerd")}
	for _, name := range []string{"/usr/bin/ctr", "/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2"} {
		if _, err := os.Stat(name); err != nil {
			t.Fatalf("%v: apt-get install containerd", err)
		}
	}
	must(t, os.MkdirAll(c.dir, 0o711))
	c.socket = filepath.Join(c.dir, "containerd.sock")
	log, err := os.Create(filepath.Join(c.dir, "log"))
	must(t, err)
	defer log.Close()
	cmd := exec.Command("/usr/bin/containerd", "--root", filepath.Join(c.dir, "root"), "--state", filepath.Join(c.dir, "state"), "--address", c.socket)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("containerd:\n%s", tail(string(text)))
		}
	})
	for begin := time.Now(); c.run(t, nil, "version").code != 0; time.Sleep(300 * time.Millisecond) {
		if time.Since(begin) > 2*time.Minute {
			t.Fatal("containerd does not come up")
		}
	}
	return c
}

func (c *ctr) run(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/ctr", append([]string{"-a", c.socket, "-n", "lucid-e2e"}, args...)...)
	r := finish(t, cmd, stdin)
	t.Logf("ctr %s: %v", args[0], r.took.Round(100*time.Millisecond))
	return r
}

// TestCtr: ctr run --runc-binary, by way of containerd-shim-runc-v2.
func TestCtr(t *testing.T) {
	c := newCtr(t)
	b := newBundle(t) // for its root file system
	run := []string{"run", "--runtime", "io.containerd.runc.v2", "--runc-binary", world.lucid}
	r := c.run(t, nil, append(run, "--rm", "--rootfs", b.root, "ctr1", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")...)
	r.wantCode(t, 3)
	r.wantStdout(t, "out\n")
	wantContains(t, r.stderr, "err\n")
	c.stdin(t, append(run, "--rm", "--rootfs", b.root, "ctr3", "/bin/cat")...)
	c.run(t, nil, append(run, "-d", "--rootfs", b.root, "ctr2", "/bin/sleep", "1000")...).wantCode(t, 0)
	r = c.run(t, nil, "task", "exec", "--exec-id", "e1", "ctr2", "/bin/sh", "-c", "echo from exec; exit 4")
	r.wantCode(t, 4)
	r.wantStdout(t, "from exec\n")
	wantContains(t, c.run(t, nil, "task", "ls").stdout, "ctr2", "RUNNING")
	c.run(t, nil, "task", "pause", "ctr2").wantCode(t, 0)
	wantContains(t, c.run(t, nil, "task", "ls").stdout, "ctr2", "PAUSED")
	c.run(t, nil, "task", "resume", "ctr2").wantCode(t, 0)
	c.run(t, nil, "task", "kill", "-s", "KILL", "ctr2").wantCode(t, 0)
	for begin := time.Now(); c.run(t, nil, "task", "rm", "ctr2").code == 1; time.Sleep(200 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the task does not end")
		}
	}
	c.run(t, nil, "container", "rm", "ctr2").wantCode(t, 0)
}

// stdin gives a container a line and then the end. The end comes when the line has come back: ctr 1.6 forgets an end that
// comes while it makes the task, and hangs, with runc as well.
func (c *ctr) stdin(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/ctr", append([]string{"-a", c.socket, "-n", "lucid-e2e"}, args...)...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = io.WriteString(in, "one line\n")
	must(t, err)
	line := make([]byte, len("one line\n"))
	_, err = io.ReadFull(out, line)
	must(t, err)
	must(t, in.Close())
	rest, err := io.ReadAll(out)
	must(t, err)
	if code := exitCode(t, cmd.Wait()); code != 0 || string(line) != "one line\n" || len(rest) > 0 {
		t.Errorf("cat: %d, %q, %q", code, line, rest)
	}
}
