package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/runtime"
)

func TestLifecycle(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	info, err := os.Stat(c.Dir())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v, want mode 0700", info.Mode(), err)
	}
	w.wantStatus("c1", runtime.Created)
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	if s.ID != "c1" || s.Pid != c.Pid() || s.Bundle != w.bundle || s.Rootfs != filepath.Join(w.bundle, "rootfs") ||
		s.Annotations["a"] != "b" || time.Since(s.Created) > time.Minute {
		t.Errorf("state %+v", s)
	}
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.Pid())); err != nil || string(score) != "123\n" {
		t.Errorf("process.oomScoreAdj is 123, the process has %q, %v", score, err)
	}
	if _, err := w.create("c1"); !errors.Is(err, runtime.ErrExist) {
		t.Errorf("second create: %v, want ErrExist", err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Running)
	if err := c.Start(); !errors.Is(err, runtime.ErrStartRunning) {
		t.Errorf("second start: %v", err)
	}
	if err := w.rt.Delete("c1", false); err == nil || err.Error() != "cannot delete container c1 that is not stopped: running" {
		t.Errorf("delete of a running container: %v", err)
	}
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.Wait(); code != 128+15 {
		t.Errorf("exit status %d", code)
	}
	w.wantStatus("c1", runtime.Stopped)
	if err := c.Signal(unix.SIGTERM); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("kill of a stopped container: %v", err)
	}
	if err := c.Start(); !errors.Is(err, runtime.ErrStartStopped) {
		t.Errorf("start of a stopped container: %v", err)
	}
	if err := w.rt.Delete("c1", false); err != nil {
		t.Fatal(err)
	}
	w.wantNothing("c1")
	for _, call := range []func() error{
		func() error { _, err := w.rt.Load("c1"); return err },
		func() error { _, err := c.Status(); return err },
		c.Start,
		func() error { return c.Signal(unix.SIGKILL) },
		func() error { return w.rt.Delete("c1", false) },
	} {
		if err := call(); !errors.Is(err, runtime.ErrNotExist) {
			t.Errorf("after delete: %v, want ErrNotExist", err)
		}
	}
	if err := w.rt.Delete("c1", true); err != nil {
		t.Errorf("delete --force of nothing: %v", err)
	}
}

func TestDeleteCreatedKills(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1", fakeIgnoreTerm)
	if err := w.rt.Delete("c1", false); err != nil {
		t.Fatal(err)
	}
	if code := c.Wait(); code != 128+9 {
		t.Errorf("exit status %d, want 137", code)
	}
	w.wantNothing("c1")
}

func TestExitStatusAndDrain(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1", fakeExit, fakeDrain)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	// The sandbox process still lives and says that the container does not.
	eventually(t, "stopped", func() bool { s, err := c.Status(); return err == nil && s == runtime.Stopped })
	if err := w.rt.Delete("c1", false); err != nil {
		t.Fatal(err)
	}
	if code := c.Wait(); code != 7 {
		t.Errorf("exit status %d, want 7: delete must let the last output out", code)
	}
	w.wantNothing("c1")
}

func TestCreateFailuresLeaveNothing(t *testing.T) {
	for _, c := range []struct {
		name, env, behave, want string
		timeout                 time.Duration
	}{
		{name: "error from the sandbox", behave: fakeFail, want: "no such program"},
		{name: "sandbox dies", env: "FAKE_DIE=1", want: "sandbox process ended before it was ready: exit status 3"},
		{name: "caller gives up", behave: fakeSlow, want: context.DeadlineExceeded.Error(), timeout: 300 * time.Millisecond},
		{name: "caller gives up, sandbox stuck", env: "FAKE_STUCK=1", want: context.DeadlineExceeded.Error(), timeout: 300 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.env)
			ctx := context.Background()
			if c.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.timeout)
				defer cancel()
			}
			cfg, err := config("c1", w.bundle, c.behave)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.rt.Create(ctx, cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			w.wantNothing("c1")
		})
	}
}

func TestIDs(t *testing.T) {
	w := newWorld(t)
	if _, err := w.create(""); !errors.Is(err, runtime.ErrEmptyID) {
		t.Errorf("no ID: %v", err)
	}
	for _, id := range []string{".", "..", "a/b", "/a", "a b", "a\x00", "ä", strings.Repeat("x", 256)} {
		if _, err := w.create(id); !errors.Is(err, runtime.ErrInvalidID) {
			t.Errorf("%q: %v, want ErrInvalidID", id, err)
		}
		if err := w.rt.Delete(id, true); !errors.Is(err, runtime.ErrInvalidID) {
			t.Errorf("delete of %q: %v, want ErrInvalidID", id, err)
		}
	}
	for _, id := range []string{"a", "A-b_c+d.e", "..a", "0", strings.Repeat("x", 255)} {
		w.mustCreate(id)
	}
	all, err := w.rt.List(func(id string, err error) { t.Errorf("%s: %v", id, err) })
	if err != nil || len(all) != 5 {
		t.Errorf("list: %d containers, %v", len(all), err)
	}
}

// TestLongRoot: a socket address holds 107 bytes, a path 4095.
func TestLongRoot(t *testing.T) {
	w := newWorld(t)
	w.root = filepath.Join(w.root, strings.Repeat("r", 200), strings.Repeat("s", 200))
	w.rt = newRuntime(t, w.root, nil)
	c := w.mustCreate("c1")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Running)
	info, err := os.Stat(filepath.Join(c.Dir(), "control.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v %v, want mode 0600", info, err)
	}
}

// TestHalfMade: what a create that was killed very early leaves.
func TestHalfMade(t *testing.T) {
	for name, content := range map[string]map[string]string{
		"empty":         {},
		"lock only":     {"lock": ""},
		"broken record": {"lock": "", "state.json": "{"},
		"no lock":       {"state.json": "[]", "alive": ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir := filepath.Join(w.root, "c1")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for f, s := range content {
				if err := os.WriteFile(filepath.Join(dir, f), []byte(s), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.rt.Load("c1"); err == nil {
				t.Error("loaded")
			}
			if err := w.rt.Delete("c1", true); err != nil {
				t.Fatal(err)
			}
			w.wantNothing("c1")
		})
	}
}

// TestSilentSandbox: a sandbox process that is stopped by SIGSTOP can be
// looked at and killed.
func TestSilentSandbox(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(c.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Running)
	if err := w.rt.Delete("c1", true); err != nil {
		t.Fatal(err)
	}
	if code := c.Wait(); code != 137 {
		t.Errorf("exit status %d, want 137", code)
	}
	w.wantNothing("c1")
}

// TestReusedPid: a record that names a pid which by now is another process
// does no harm.
func TestReusedPid(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	path := filepath.Join(c.Dir(), "state.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.Replace(string(data), `"pid":`+itoa(c.Pid()), `"pid":`+itoa(os.Getpid()), 1)
	if ours == string(data) {
		t.Fatal("the record does not name the pid")
	}
	if err := os.WriteFile(path, []byte(ours), 0o600); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Stopped)
	if err := w.rt.Delete("c1", true); err != nil { // would kill this test
		t.Fatal(err)
	}
	w.wantNothing("c1")
}
