package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

// execRig is a running container whose agent takes execs.
type execRig struct {
	*rig
	mu      sync.Mutex
	exec    wire.Exec      // the last one
	streams [3]wire.Stream // its streams
	signals []wire.Signal
	fail    *wire.Error
}

func newExecRig(t *testing.T) *execRig {
	t.Helper()
	x := &execRig{}
	x.rig = newRig(t, map[string]func([]byte) (any, *wire.Error){
		wire.MethodExec: func(params []byte) (any, *wire.Error) { return wire.Created{Pid: 9}, x.open(t, params) },
		wire.MethodSignal: func(params []byte) (any, *wire.Error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			var s wire.Signal
			if err := wire.Unmarshal(params, &s); err != nil {
				t.Error(err)
			}
			x.signals = append(x.signals, s)
			return struct{}{}, nil
		},
		wire.MethodStats: func([]byte) (any, *wire.Error) { return wire.StatsResult{PidsCurrent: 3}, nil },
	})
	x.c.vm = x.vm
	return x
}

func (x *execRig) open(t *testing.T, params []byte) *wire.Error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail != nil {
		return x.fail
	}
	if err := wire.Unmarshal(params, &x.exec); err != nil {
		t.Error(err)
	}
	for i, id := range []uint64{x.exec.IO.Stdin, x.exec.IO.Stdout, x.exec.IO.Stderr} {
		if x.streams[i] = nil; id == 0 {
			continue
		}
		s, err := x.agent.mux.Open(id)
		if err != nil {
			t.Error(err)
		}
		x.streams[i] = s
	}
	return nil
}

func (x *execRig) stream(i int) wire.Stream {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.streams[i]
}

func (x *execRig) signalled(want wire.Signal) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.signals {
		if s == want {
			return true
		}
	}
	return false
}

func (x *execRig) ended(t *testing.T, id string, status int, stdout uint64) {
	t.Helper()
	if err := x.agent.conn.WriteFrame(&wire.Frame{
		Method: wire.EventContainerExited, Params: raw(wire.ContainerExited{ID: "c1", ExecID: id, Status: status, Stdout: stdout}),
	}); err != nil {
		t.Error(err)
	}
}

// start runs an exec over pipes, of which the caller keeps the other ends.
func (x *execRig) start(t *testing.T, ctx context.Context) (id string, in, out *os.File, err error) {
	t.Helper()
	stdin, in := pipe(t)
	out, stdout := pipe(t)
	result, err := x.c.Control(ctx, control.MethodExec, asJSON(control.Exec{
		Process: asJSON(map[string]any{"args": []string{"cat"}}), Null: [3]bool{false, false, true}, Pid: 4711,
	}), []*os.File{stdin, stdout})
	_, _ = stdin.Close(), stdout.Close() // as the server does
	if err != nil {
		return "", nil, nil, err
	}
	return result.(*control.ExecStarted).ExecID, in, out, nil
}

func TestExec(t *testing.T) {
	x := newExecRig(t)
	if _, _, _, err := x.start(t, t.Context()); kindOf(err) != control.KindBadRequest {
		t.Errorf("exec before start: %v", err)
	}
	mustControl(t, x.rig, control.MethodStart, nil)
	ctx, gone := context.WithCancel(t.Context())
	defer gone()
	id, in, out, err := x.start(t, ctx)
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := x.c.Control(ctx, control.MethodPids, nil, nil); err != nil || len(pids.(control.Pids).Pids) != 2 || pids.(control.Pids).Pids[1] != 4711 {
		t.Errorf("pids %v, %v", pids, err)
	}
	go func() {
		n, err := io.Copy(x.stream(1), x.stream(0))
		if err != nil {
			t.Error(err)
		}
		x.ended(t, "other", 1, 0)
		x.ended(t, id, 5, uint64(n))
		x.ended(t, id, 6, 0)
	}()
	go func() { _, _ = in.WriteString("some bytes"); _ = in.Close() }()
	// The end of the output is the end of the exec: nothing else holds the pipe.
	if data, err := io.ReadAll(out); err != nil || string(data) != "some bytes" {
		t.Errorf("output %q, %v", data, err)
	}
	exit, err := x.c.Control(ctx, control.MethodExecWait, asJSON(control.ExecStarted{ExecID: id}), nil)
	if err != nil || exit.(*control.Exit).Code != 5 {
		t.Errorf("exit %v, %v", exit, err)
	}
	if _, err := x.c.Control(ctx, control.MethodKill, asJSON(control.KillParams{ExecID: id, Signal: 15}), nil); kindOf(err) != control.KindNotRunning {
		t.Errorf("kill after exit: %v", err)
	}
	gone()
	eventually(t, func() bool { return x.c.execs.get(id) == nil })
	if _, err := x.c.Control(t.Context(), control.MethodExecWait, asJSON(control.ExecStarted{ExecID: id}), nil); kindOf(err) != control.KindNotRunning {
		t.Errorf("wait for one that is gone: %v", err)
	}
}

// TestExecStandInDies: the process in the guest is killed, and no pipe stays open.
func TestExecStandInDies(t *testing.T) {
	x := newExecRig(t)
	mustControl(t, x.rig, control.MethodStart, nil)
	ctx, die := context.WithCancel(t.Context())
	id, in, out, err := x.start(t, ctx)
	if err != nil {
		t.Fatal(err)
	}
	die()
	eventually(t, func() bool { return x.signalled(wire.Signal{ID: "c1", ExecID: id, Signal: int(unix.SIGKILL)}) })
	if _, err := io.ReadAll(out); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { _, err := in.WriteString("x"); return errors.Is(err, unix.EPIPE) })
}

// TestExecContainerEnds: with the container its other processes end.
func TestExecContainerEnds(t *testing.T) {
	x := newExecRig(t)
	mustControl(t, x.rig, control.MethodStart, nil)
	id, _, _, err := x.start(t, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x.agent.exited("c1", 0, 0, 0)
	if code := x.exit(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	exit, err := x.c.Control(t.Context(), control.MethodExecWait, asJSON(control.ExecStarted{ExecID: id}), nil)
	if err != nil || exit.(*control.Exit).Code != 137 {
		t.Errorf("exit %v, %v", exit, err)
	}
	if _, _, _, err := x.start(t, t.Context()); kindOf(err) != control.KindNotRunning {
		t.Errorf("exec after the end: %v", err)
	}
}

func TestExecBadInput(t *testing.T) {
	x := newExecRig(t)
	mustControl(t, x.rig, control.MethodStart, nil)
	file, _ := pipe(t)
	for name, c := range map[string]struct {
		params string
		files  []*os.File
	}{
		"no JSON":                 {params: "{"},
		"process is no object":    {params: `{"Process": 1, "Null": [true, true, true]}`},
		"files are missing":       {params: `{"Process": {}, "Null": [false, false, false]}`, files: []*os.File{file}},
		"stderr and a terminal":   {params: `{"Process": {"terminal": true}, "Null": [true, true, false]}`, files: []*os.File{file}},
		"no process in the guest": {params: `{"Process": {}, "Null": [true, true, true]}`},
	} {
		x.mu.Lock()
		x.fail = &wire.Error{Kind: wire.KindFailed, Message: `exec: "nosuch": executable file not found in $PATH`}
		x.mu.Unlock()
		_, err := x.c.Control(t.Context(), control.MethodExec, json.RawMessage(c.params), c.files)
		if want := control.KindBadRequest; kindOf(err) != want && kindOf(err) != control.KindGuest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if pids := x.c.execs.pids(); len(pids) > 0 {
		t.Errorf("left behind: %v", pids)
	}
	for _, method := range []string{control.MethodExecWait, control.MethodResize, control.MethodKill} {
		_, err := x.c.Control(t.Context(), method, json.RawMessage(`{"ExecID": "nosuch", "Signal": 15}`), nil)
		if kindOf(err) != control.KindNotRunning {
			t.Errorf("%s of no process: %v", method, err)
		}
	}
}

func TestPause(t *testing.T) {
	x := newExecRig(t)
	mustControl(t, x.rig, control.MethodStart, nil)
	id, _, _, err := x.start(t, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.c.Control(t.Context(), control.MethodResume, nil, nil); kindOf(err) != control.KindPaused {
		t.Errorf("resume without pause: %v", err)
	}
	mustControl(t, x.rig, control.MethodPause, nil)
	if s := x.c.status().State; s != control.StatePaused || !x.vm.isPaused() {
		t.Errorf("state %q, VM paused: %v", s, x.vm.isPaused())
	}
	// No call reaches the guest.
	for _, method := range []string{control.MethodPause, control.MethodStart, control.MethodStats, control.MethodUpdate, control.MethodExec} {
		if _, err := x.c.Control(t.Context(), method, json.RawMessage("{}"), nil); kindOf(err) != control.KindPaused && kindOf(err) != control.KindRunning {
			t.Errorf("%s while paused: %v", method, err)
		}
	}
	for _, p := range []control.KillParams{{Signal: 15}, {Signal: 15}, {Signal: 1, ExecID: id}} {
		mustControl(t, x.rig, control.MethodKill, p)
	}
	if n := len(x.signals); n != 0 {
		t.Errorf("%d signals reached a paused guest", n)
	}
	mustControl(t, x.rig, control.MethodResume, nil)
	eventually(t, func() bool {
		return x.signalled(wire.Signal{ID: "c1", Signal: 15}) && x.signalled(wire.Signal{ID: "c1", ExecID: id, Signal: 1})
	})
	x.mu.Lock()
	if n := len(x.signals); n != 2 {
		t.Errorf("%d signals, want 2: the same one again does not count", n)
	}
	x.mu.Unlock()
	if s := x.c.status().State; s != control.StateRunning {
		t.Errorf("state %q", s)
	}
	// SIGKILL does not wait.
	mustControl(t, x.rig, control.MethodPause, nil)
	mustControl(t, x.rig, control.MethodKill, control.KillParams{Signal: int(unix.SIGKILL)})
	eventually(t, func() bool { return x.signalled(wire.Signal{ID: "c1", Signal: 9}) })
	if x.vm.isPaused() {
		t.Error("the VM is still paused")
	}
	if _, err := x.c.Control(t.Context(), control.MethodStats, nil, nil); err != nil {
		t.Errorf("stats: %v", err)
	}
}

// TestExecWaitsForResume is exec --ignore-paused.
func TestExecWaitsForResume(t *testing.T) {
	x := newExecRig(t)
	mustControl(t, x.rig, control.MethodStart, nil)
	mustControl(t, x.rig, control.MethodPause, nil)
	done := make(chan error, 1)
	params := asJSON(control.Exec{Process: asJSON(map[string]any{}), Null: [3]bool{true, true, true}, Wait: true})
	go func() { _, err := x.c.Control(t.Context(), control.MethodExec, params, nil); done <- err }()
	select {
	case err := <-done:
		t.Fatalf("exec in a paused container: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	mustControl(t, x.rig, control.MethodResume, nil)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
