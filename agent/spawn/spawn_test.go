package spawn_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
)

func clone(t *testing.T) *spawn.Child {
	t.Helper()
	c, err := spawn.Clone(spawn.Config{CgroupFD: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Forget)
	return c
}

func wait(t *testing.T, c *spawn.Child) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(c.Pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	return ws
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

func TestRunAndExec(t *testing.T) {
	c := clone(t)
	r, w := pipe(t)
	p := new(spawn.Program)
	msg := "hello from the child\n"
	p.Call("write", unix.SYS_WRITE, w.Fd(), p.String(msg), uintptr(len(msg)))
	if err := c.Run(p); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := r.Read(buf)
	if err != nil || string(buf[:n]) != msg {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	// The next program only comes now: the child waited for it.
	p = new(spawn.Program)
	p.Call("unshare descriptors", unix.SYS_UNSHARE, unix.CLONE_FILES)
	p.Call("dup stdout", unix.SYS_DUP3, w.Fd(), 1, 0)
	if err := c.Run(p); err != nil {
		t.Fatal(err)
	}
	p = new(spawn.Program)
	p.Call("execve", unix.SYS_EXECVE, p.String("/bin/sh"),
		p.Strings([]string{"sh", "-c", "echo $A $0; exit 7", "zero"}), p.Strings([]string{"A=b"}))
	if err := c.Exec(p); err != nil {
		t.Fatal(err)
	}
	if c.Running() {
		t.Error("Running after Exec")
	}
	if ws := wait(t, c); ws.ExitStatus() != 7 {
		t.Errorf("status %v", ws)
	}
	n, err = r.Read(buf)
	if err != nil || string(buf[:n]) != "b zero\n" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
}

func TestFailedStepIsNamed(t *testing.T) {
	c := clone(t)
	p := new(spawn.Program)
	p.Try("may fail", unix.SYS_CLOSE, 1<<30)
	p.Call("first", unix.SYS_GETPID)
	p.Call("change directory", unix.SYS_CHDIR, p.String("/no/such"))
	p.Call("not reached", unix.SYS_CLOSE, 0)
	var step *spawn.StepError
	if err := c.Run(p); !errors.As(err, &step) || step.Name != "change directory" || step.Errno != unix.ENOENT {
		t.Fatalf("Run: %v", err)
	}
	if ws := wait(t, c); ws.ExitStatus() != 127 {
		t.Errorf("status %v", ws)
	}
}

func TestFailedExec(t *testing.T) {
	c := clone(t)
	p := new(spawn.Program)
	p.Call("execve", unix.SYS_EXECVE, p.String("/dev/null"), p.Strings([]string{"x"}), p.Strings(nil))
	if err := c.Exec(p); !errors.Is(err, unix.EACCES) {
		t.Fatalf("Exec: %v", err)
	}
	wait(t, c)
}

func TestKilledBeforeItRuns(t *testing.T) {
	c := clone(t)
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if ws := wait(t, c); ws.Signal() != unix.SIGTERM {
		t.Errorf("status %v", ws)
	}
	p := new(spawn.Program)
	p.Call("getpid", unix.SYS_GETPID)
	if err := c.Run(p); !errors.Is(err, spawn.ErrGone) {
		t.Errorf("Run: %v", err)
	}
}

// The child shares descriptors only until it unshares them.
func TestDescriptors(t *testing.T) {
	c := clone(t)
	r, w := pipe(t)
	p := new(spawn.Program)
	p.Call("unshare descriptors", unix.SYS_UNSHARE, unix.CLONE_FILES)
	p.Call("close", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), 0)
	if err := c.Run(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v: the child still holds the pipe", n, err)
	}
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, c)
}

// Many children at once, with garbage collections between, keep their programs.
func TestManyChildren(t *testing.T) {
	for range 50 {
		c := clone(t)
		p := new(spawn.Program)
		p.Call("execve", unix.SYS_EXECVE, p.String("/bin/sh"),
			p.Strings([]string{"sh", "-c", strings.Repeat(" ", 5000) + "exit 3"}), p.Strings(nil))
		_ = make([]byte, 1<<20)
		if err := c.Exec(p); err != nil {
			t.Fatal(err)
		}
		if ws := wait(t, c); ws.ExitStatus() != 3 {
			t.Fatalf("status %v", ws)
		}
	}
}
