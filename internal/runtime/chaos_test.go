package runtime_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/runtime"
)

func itoa(n int) string { return strconv.Itoa(n) }

// creator starts a process that creates a container.
func (w *world) creator(id string, behave ...string) (*exec.Cmd, *bufio.Reader, io.Closer) {
	w.t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{creatorName, w.root, w.bundle, id}, behave...)...)
	cmd.Env = append(os.Environ(), w.env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewReader(out), in
}

// TestSandboxOutlivesCreator: the container belongs to nobody's lifetime.
func TestSandboxOutlivesCreator(t *testing.T) {
	w := newWorld(t)
	cmd, out, in := w.creator("c1", fakeEcho)
	if line, err := out.ReadString('\n'); line != "created\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Created)
	c, err := w.rt.Load("c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Running)
	if err := w.rt.Delete("c1", true); err != nil {
		t.Fatal(err)
	}
	w.wantNothing("c1")
}

// TestKillCreator kills the creator at many moments of a create. After
// delete --force there must be nothing.
func TestKillCreator(t *testing.T) {
	steps := []time.Duration{0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60}
	for _, c := range []struct{ name, env, behave string }{
		{"normal", "", ""}, {"slow guest", "", fakeSlow}, {"stuck sandbox", "FAKE_STUCK=1", ""},
	} {
		for _, ms := range steps {
			t.Run(fmt.Sprintf("%s/%dms", c.name, ms), func(t *testing.T) {
				w := newWorld(t, c.env)
				cmd, _, _ := w.creator("c1", c.behave)
				time.Sleep(ms * time.Millisecond)
				_ = cmd.Process.Kill()
				if err := w.rt.Delete("c1", true); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				w.wantNothing("c1")
			})
		}
	}
}

// TestDeleteWhileCreating: delete --force wins over a create under way, which
// then fails and leaves nothing either.
func TestDeleteWhileCreating(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		id := fmt.Sprintf("c%d", i)
		cfg, err := config(id, w.bundle)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := w.rt.Create(t.Context(), cfg); done <- err }()
		time.Sleep(time.Duration(i) * time.Millisecond)
		if err := w.rt.Delete(id, true); err != nil {
			t.Error(err)
		}
		if <-done == nil {
			// It was too early: the container came after it.
			if err := w.rt.Delete(id, true); err != nil {
				t.Error(err)
			}
		}
		w.wantNothing(id)
	}
}

func TestKillSandbox(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { s, err := c.Status(); return err == nil && s == runtime.Stopped })
	if code := c.Wait(); code != 137 {
		t.Errorf("exit status %d, want 137", code)
	}
	if err := c.Start(); !errors.Is(err, runtime.ErrStartStopped) {
		t.Errorf("start: %v", err)
	}
	if err := w.rt.Delete("c1", false); err != nil {
		t.Fatal(err)
	}
	w.wantNothing("c1")
}

// TestConcurrent: many at once on few names. Whatever the order, each call
// succeeds or fails with one of the known errors.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	known := []error{runtime.ErrExist, runtime.ErrNotExist, runtime.ErrNotRunning, runtime.ErrStartRunning, runtime.ErrStartStopped}
	check := func(what string, err error) {
		var notStopped *runtime.NotStoppedError
		if err == nil || errors.As(err, &notStopped) {
			return
		}
		for _, k := range known {
			if errors.Is(err, k) {
				return
			}
		}
		switch err.Error() {
		case "container was deleted while it was being created",
			"sandbox process was killed while the container was being created",
			"cannot start a container in the creating state":
			return
		}
		// Killed by a delete --force in between.
		if what == "create" {
			t.Logf("create: %v", err)
			return
		}
		t.Errorf("%s: %v", what, err)
	}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 12 {
				id := "c" + itoa((n+i)%2)
				cfg, err := config(id, w.bundle)
				check("config", err)
				_, err = w.rt.Create(t.Context(), cfg)
				check("create", err)
				if c, err := w.rt.Load(id); err == nil {
					_, err = c.State()
					check("state", err)
					check("start", c.Start())
					check("kill", c.Signal(unix.SIGTERM))
				} else {
					check("load", err)
				}
				check("delete", w.rt.Delete(id, i%3 == 0))
				_, err = w.rt.List(func(id string, err error) { check("list "+id, err) })
				check("list", err)
			}
		})
	}
	wg.Wait()
	for _, id := range []string{"c0", "c1"} {
		if err := w.rt.Delete(id, true); err != nil {
			t.Error(err)
		}
		w.wantNothing(id)
	}
}
