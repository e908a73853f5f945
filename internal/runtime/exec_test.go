package runtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/wire"
)

// fakeStandIn makes this binary a stand-in process.
const fakeStandIn = "fake-stand-in"

// fakeExec is cat: it ends with 5 at the end of its stdin, or by a signal, or
// with its connection.
type fakeExec struct {
	end  chan int // has room for one
	done chan struct{}
	code int
}

// more is what the fake sandbox does besides a container's lifecycle.
func (f *fake) more(ctx context.Context, method string, params json.RawMessage, files []*os.File) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch method {
	case control.MethodExec:
		return f.exec(ctx, params, files)
	case control.MethodExecWait:
		var p control.ExecStarted
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		e := f.execs[p.ExecID]
		f.mu.Unlock()
		<-e.done
		f.mu.Lock()
		return control.Exit{Code: e.code}, nil
	case control.MethodPause:
		f.state = control.StatePaused
	case control.MethodResume:
		f.state = control.StateRunning
	case control.MethodPids:
		return control.Pids{Pids: []int{os.Getpid()}}, nil
	case control.MethodStats:
		return wire.StatsResult{PidsCurrent: 3}, nil
	case control.MethodUpdate:
		if !strings.Contains(string(params), "limit") {
			return nil, &control.Error{Kind: control.KindGuest, Message: "nothing to update"}
		}
	default:
		return nil, &control.Error{Kind: control.KindBadRequest, Message: method}
	}
	return nil, nil
}

// exec runs with f.mu held.
func (f *fake) exec(ctx context.Context, params json.RawMessage, files []*os.File) (any, error) {
	var p control.Exec
	var process specs.Process
	if err := errors.Join(json.Unmarshal(params, &p), json.Unmarshal(p.Process, &process)); err != nil {
		return nil, err
	}
	if process.Args[0] == "nosuch" {
		return nil, &control.Error{Kind: control.KindGuest, Message: `exec: "nosuch": executable file not found in $PATH`}
	}
	e := &fakeExec{end: make(chan int, 8), done: make(chan struct{})}
	id := strconv.Itoa(len(f.execs) + 1)
	if f.execs == nil {
		f.execs = map[string]*fakeExec{}
	}
	f.execs[id] = e
	var own []*os.File
	for _, file := range files {
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		own = append(own, os.NewFile(uintptr(fd), "own"))
	}
	if len(own) > 1 {
		go func() {
			_, _ = io.Copy(own[1], own[0])
			e.end <- 5
		}()
	}
	go func() {
		select {
		case e.code = <-e.end:
		case <-ctx.Done():
		}
		for _, file := range own {
			_ = file.Close()
		}
		close(e.done)
	}()
	return control.ExecStarted{ExecID: id}, nil
}

func (f *fake) killExec(p control.KillParams) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.execs[p.ExecID]
	if e == nil {
		return &control.Error{Kind: control.KindNotRunning}
	}
	e.end <- 128 + p.Signal
	return nil
}

func execConfig(t *testing.T, args ...string) (cfg runtime.ExecConfig, in, out *os.File) {
	t.Helper()
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{stdin, in, out, stdout, null} {
			_ = f.Close()
		}
	})
	cfg.Process = &specs.Process{Args: args, Cwd: "/"}
	cfg.Stdio = [3]*os.File{stdin, stdout, null}
	return cfg, in, out
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	cfg, in, out := execConfig(t, "cat")
	if _, err := c.Exec(t.Context(), cfg); !errors.Is(err, runtime.ErrExecCreated) {
		t.Errorf("exec before start: %v", err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	e, err := c.Exec(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func(in *os.File) { _, _ = in.Write(big); _ = in.Close() }(in)
	code, stdout := make(chan int, 1), cfg.Stdio[1]
	go func() { code <- e.Wait(); _ = stdout.Close() }()
	if data, err := io.ReadAll(out); err != nil || !bytes.Equal(data, big) {
		t.Errorf("%d bytes of %d, %v", len(data), len(big), err)
	}
	if c := <-code; c != 5 {
		t.Errorf("exit status %d, want 5", c)
	}

	cfg, _, _ = execConfig(t, "cat")
	if e, err = c.Exec(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := e.Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	if code := e.Wait(); code != 128+int(unix.SIGUSR1) {
		t.Errorf("exit status %d after SIGUSR1", code)
	}

	cfg, _, _ = execConfig(t, "nosuch")
	if _, err := c.Exec(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("exec of nothing: %v", err)
	}

	// The sandbox process is killed under it.
	cfg, _, _ = execConfig(t, "cat")
	if e, err = c.Exec(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := e.Wait(); code != 137 {
		t.Errorf("exit status %d without a sandbox, want 137", code)
	}
	c.Wait()
	if _, err := c.Exec(t.Context(), cfg); !errors.Is(err, runtime.ErrExecStopped) {
		t.Errorf("exec in a stopped container: %v", err)
	}
}

func TestExecDetached(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cfg, in, out := execConfig(t, "cat")
	d, err := w.rt.ExecDetached(t.Context(), "c1", cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	// Only the stand-in has them now.
	_, _ = cfg.Stdio[0].Close(), cfg.Stdio[1].Close()
	if _, err := in.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "hello" {
		t.Errorf("%q, %v", buf, err)
	}
	// A signal to the stand-in goes to the process.
	if err := unix.Kill(d.Pid, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(d.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 128+int(unix.SIGHUP) {
		t.Errorf("status %d, %v", ws.ExitStatus(), err)
	}
	if data, err := io.ReadAll(out); err != nil || len(data) > 0 {
		t.Errorf("after its end: %q, %v: somebody holds the pipe", data, err)
	}

	// A stand-in of which nobody learned the pid ends.
	cfg, _, _ = execConfig(t, "cat")
	if d, err = w.rt.ExecDetached(t.Context(), "c1", cfg); err != nil {
		t.Fatal(err)
	}
	d.Discard()
	if err := unix.Kill(d.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("after Discard: %v", err)
	}

	cfg, _, _ = execConfig(t, "nosuch")
	if _, err := w.rt.ExecDetached(t.Context(), "c1", cfg); err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("exec of nothing: %v", err)
	}
	if _, err := w.rt.ExecDetached(t.Context(), "c2", cfg); !errors.Is(err, runtime.ErrNotExist) {
		t.Errorf("exec in no container: %v", err)
	}
}

func TestOperate(t *testing.T) {
	w := newWorld(t)
	c := w.mustCreate("c1")
	if err := c.Resume(); !errors.Is(err, runtime.ErrNotPaused) {
		t.Errorf("resume of one that is not paused: %v", err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Paused)
	cfg, _, _ := execConfig(t, "cat")
	for want, call := range map[error]func() error{
		runtime.ErrNotRunning: c.Pause,
		runtime.ErrExecPaused: func() error { _, err := c.Exec(t.Context(), cfg); return err },
	} {
		if err := call(); !errors.Is(err, want) {
			t.Errorf("while paused: %v, want %v", err, want)
		}
	}
	if err := c.Start(); err == nil || err.Error() != "cannot start a container in the paused state" {
		t.Errorf("start while paused: %v", err)
	}
	if err := w.rt.Delete("c1", false); err == nil || err.Error() != "cannot delete container c1 that is not stopped: paused" {
		t.Errorf("delete while paused: %v", err)
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus("c1", runtime.Running)
	if pids, err := c.Pids(); err != nil || len(pids) != 1 || pids[0] != c.Pid() {
		t.Errorf("pids %v, %v", pids, err)
	}
	if s, err := c.Stats(); err != nil || s.PidsCurrent != 3 {
		t.Errorf("stats %+v, %v", s, err)
	}
	limit := int64(7)
	if err := c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}); err != nil {
		t.Error(err)
	}
	if err := c.Update(&specs.LinuxResources{}); err == nil || err.Error() != "nothing to update" {
		t.Errorf("the guest's answer: %v", err)
	}
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	for name, call := range map[string]func() error{
		"pause": c.Pause, "update": func() error { return c.Update(&specs.LinuxResources{}) },
		"pids":  func() error { _, err := c.Pids(); return err },
		"stats": func() error { _, err := c.Stats(); return err },
	} {
		if err := call(); !errors.Is(err, runtime.ErrNotRunning) {
			t.Errorf("%s of a stopped container: %v", name, err)
		}
	}
}
