package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/vmm"
)

func mustControl(t *testing.T, r *rig, method string, params any) {
	t.Helper()
	if _, err := r.c.Control(t.Context(), method, asJSON(params), nil); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

func kindOf(err error) control.Kind {
	var ce *control.Error
	if errors.As(err, &ce) {
		return ce.Kind
	}
	return ""
}

// TestJourney: stdin in, stdout and stderr out, and the exit status last, after
// files were written back.
func TestJourney(t *testing.T) {
	r := newRig(t, nil)
	if s := r.c.status().State; s != control.StateCreated {
		t.Fatalf("state %q", s)
	}
	mustControl(t, r, control.MethodStart, nil)
	if s := r.c.status().State; s != control.StateRunning {
		t.Fatalf("state %q", s)
	}
	if _, err := r.c.Control(t.Context(), control.MethodStart, nil, nil); kindOf(err) != control.KindRunning {
		t.Errorf("second start: %v", err)
	}
	// The guest's process is cat, which also complains.
	go func() {
		n, err := io.Copy(r.agent.out[0], r.agent.in)
		if err != nil {
			t.Error(err)
		}
		if _, err := r.agent.out[1].Write([]byte("done\n")); err != nil {
			t.Error(err)
		}
		r.agent.exited("other", 1, 0, 0) // not ours
		r.agent.exited("c1", 42, uint64(n), 5)
		r.agent.exited("c1", 43, 0, 0) // once is enough
	}()
	big := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func() { _, _ = r.in.Write(big); _ = r.in.Close() }()
	read := make(chan []byte, 1)
	go func() { data, _ := io.ReadAll(r.out[0]); read <- data }()
	if code := r.exit(t); code != 42 {
		t.Errorf("exit status %d", code)
	}
	_ = r.stdout.Close() // as the end of the process does
	if got := <-read; !bytes.Equal(got, big) {
		t.Errorf("%d bytes came out, %d went in", len(got), len(big))
	}
	line := make([]byte, 5)
	if _, err := io.ReadFull(r.out[1], line); err != nil || string(line) != "done\n" {
		t.Errorf("stderr %q, %v", line, err)
	}
	if !r.agent.called(wire.MethodShutdown) || !r.vm.stopped() {
		t.Error("the VM was ended without writing back files, or not at all")
	}
	if s := r.c.status(); s.State != control.StateStopped || s.Exit.Code != 42 {
		t.Errorf("status %+v", s)
	}
	if _, err := r.c.Control(t.Context(), control.MethodKill, asJSON(control.KillParams{Signal: 15}), nil); kindOf(err) != control.KindNotRunning {
		t.Errorf("kill after exit: %v", err)
	}
	if _, err := r.c.Control(t.Context(), control.MethodStart, nil, nil); kindOf(err) != control.KindNotRunning {
		t.Errorf("start after exit: %v", err)
	}
}

// TestSlowReader: the exit waits until the last output has been passed on.
func TestSlowReader(t *testing.T) {
	r := newRig(t, nil)
	mustControl(t, r, control.MethodStart, nil)
	const size = 200_000 // more than a pipe holds
	go func() { _, _ = r.agent.out[0].Write(make([]byte, size)) }()
	r.agent.exited("c1", 0, size, 0)
	code := make(chan int, 1)
	go func() { code <- r.wait() }()
	select {
	case c := <-code:
		t.Fatalf("exit status %d before the output was read", c)
	case <-time.After(200 * time.Millisecond):
	}
	if s := r.c.status().State; s != control.StateRunning {
		t.Errorf("state %q while output is pending", s)
	}
	if n, err := io.CopyN(io.Discard, r.out[0], size); err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if c := <-code; c != 0 {
		t.Errorf("exit status %d", c)
	}
}

// TestNoReader: SIGKILL ends a sandbox whose output nobody takes.
func TestNoReader(t *testing.T) {
	r := newRig(t, nil)
	mustControl(t, r, control.MethodStart, nil)
	const size = 200_000
	go func() { _, _ = r.agent.out[0].Write(make([]byte, size)) }()
	r.agent.exited("c1", 3, size, 0)
	time.AfterFunc(100*time.Millisecond, func() { _ = r.c.kill(unix.SIGKILL) })
	if code := r.exit(t); code != 3 {
		t.Errorf("exit status %d, want the process's own", code)
	}
}

// TestClosedReader: a container that writes to a pipe without a reader gets
// an error, and its exit is not held up.
func TestClosedReader(t *testing.T) {
	r := newRig(t, nil)
	mustControl(t, r, control.MethodStart, nil)
	_ = r.out[0].Close()
	failed := make(chan error, 1)
	go func() {
		for {
			if _, err := r.agent.out[0].Write(make([]byte, 1000)); err != nil {
				failed <- err
				return
			}
		}
	}()
	select {
	case <-failed:
	case <-time.After(20 * time.Second):
		t.Fatal("the guest can write for ever")
	}
	r.agent.exited("c1", 141, 1<<40, 0)
	if code := r.exit(t); code != 141 {
		t.Errorf("exit status %d", code)
	}
}

// TestBackgroundHoldsStream: a stream that stays open does not hold up the exit.
func TestBackgroundHoldsStream(t *testing.T) {
	r := newRig(t, nil)
	mustControl(t, r, control.MethodStart, nil)
	if _, err := r.agent.out[0].Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	r.agent.exited("c1", 0, 2, 0)
	if code := r.exit(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestKill(t *testing.T) {
	got := make(chan int, 10)
	r := newRig(t, map[string]func([]byte) (any, *wire.Error){
		wire.MethodSignal: func(p []byte) (any, *wire.Error) {
			var s wire.Signal
			if err := wire.Unmarshal(p, &s); err != nil || s.ID != "c1" || s.ExecID != "" {
				return nil, &wire.Error{Kind: wire.KindInvalid, Message: string(p)}
			}
			got <- s.Signal
			return struct{}{}, nil
		},
	})
	mustControl(t, r, control.MethodStart, nil)
	mustControl(t, r, control.MethodKill, control.KillParams{Signal: 15})
	if s := <-got; s != 15 {
		t.Errorf("signal %d", s)
	}
	// SIGKILL that the guest does not obey.
	r.c.patience = 50 * time.Millisecond
	mustControl(t, r, control.MethodKill, control.KillParams{Signal: 9})
	if code := r.exit(t); code != 137 || !r.vm.stopped() {
		t.Errorf("exit status %d, VM stopped %v", code, r.vm.stopped())
	}
}

// TestKillWithoutAgent: SIGKILL works when the agent answers with an error.
func TestKillWithoutAgent(t *testing.T) {
	r := newRig(t, map[string]func([]byte) (any, *wire.Error){
		wire.MethodSignal: func([]byte) (any, *wire.Error) {
			return nil, &wire.Error{Kind: wire.KindFailed, Message: "no"}
		},
	})
	mustControl(t, r, control.MethodStart, nil)
	if _, err := r.c.Control(t.Context(), control.MethodKill, asJSON(control.KillParams{Signal: 15}), nil); kindOf(err) != control.KindGuest {
		t.Errorf("SIGTERM: %v", err)
	}
	mustControl(t, r, control.MethodKill, control.KillParams{Signal: 9})
	if code := r.exit(t); code != 137 {
		t.Errorf("exit status %d", code)
	}
}

func TestStartFails(t *testing.T) {
	const text = `exec: "x": permission denied`
	r := newRig(t, map[string]func([]byte) (any, *wire.Error){
		wire.MethodStartContainer: func([]byte) (any, *wire.Error) {
			return nil, &wire.Error{Kind: wire.KindFailed, Message: text}
		},
	})
	_, err := r.c.Control(t.Context(), control.MethodStart, nil, nil)
	if kindOf(err) != control.KindGuest || err.Error() != text {
		t.Errorf("%v", err)
	}
	if s := r.c.status().State; s != control.StateCreated {
		t.Errorf("state %q", s)
	}
}

// TestLostGuest: a guest that goes away under its container.
func TestLostGuest(t *testing.T) {
	t.Run("VM crashes", func(t *testing.T) {
		r := newRig(t, nil)
		mustControl(t, r, control.MethodStart, nil)
		r.vm.end <- vmEnd{vmm.Exit{Reason: vmm.ReasonCrash}, errors.New("triple fault")}
		if code := r.exit(t); code != failed {
			t.Errorf("exit status %d", code)
		}
	})
	t.Run("agent closes", func(t *testing.T) {
		r := newRig(t, nil)
		mustControl(t, r, control.MethodStart, nil)
		_ = r.agent.conn.Close()
		if code := r.exit(t); code != failed || !r.vm.stopped() {
			t.Errorf("exit status %d", code)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		r := newRig(t, nil)
		mustControl(t, r, control.MethodStart, nil)
		_ = r.agent.conn.WriteRaw([]byte("\xff\xff\xff\xff"))
		if code := r.exit(t); code != failed {
			t.Errorf("exit status %d", code)
		}
	})
	t.Run("silly status", func(t *testing.T) {
		r := newRig(t, nil)
		mustControl(t, r, control.MethodStart, nil)
		r.agent.exited("c1", -1, 0, 0)
		if code := r.exit(t); code != 255 {
			t.Errorf("exit status %d", code)
		}
	})
}

func TestCreateFails(t *testing.T) {
	r := newRig(t, nil)
	r.agent.handle = map[string]func([]byte) (any, *wire.Error){
		wire.MethodCreateContainer: func([]byte) (any, *wire.Error) {
			return nil, &wire.Error{Kind: wire.KindFailed, Message: strings.Repeat("x", 5000)}
		},
	}
	in, _ := pipe(t)
	err := r.c.create(t.Context(), r.machine.link.streams(), newStdio(false, in, r.stdout, r.stderr))
	err = r.explain(t.Context(), err)
	if kindOf(err) != control.KindGuest || len(err.Error()) > maxText+10 {
		t.Errorf("%d bytes of error, kind %q: the guest's text is to be bounded", len(err.Error()), kindOf(err))
	}
}

// TestDevNull: files that need no stream get none.
func TestDevNull(t *testing.T) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s := newStdio(false, null, null, null)
	for i, e := range s.ends() {
		if e != nil {
			t.Errorf("fd %d has a stream", i)
		}
	}
	names, err := s.expect(nil)
	if err != nil || names != (wire.IO{}) {
		t.Errorf("%+v, %v", names, err)
	}
	s.start()
	s.drain(t.Context(), 100, 100)
}

func TestGuestLog(t *testing.T) {
	var out bytes.Buffer
	var logged bytes.Buffer
	g := newGuestLog(&out, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	_, _ = g.Write([]byte("hello\r\n"))
	chunk := []byte(strings.Repeat("y", 99) + "\n")
	for range 3 * guestLogMax / len(chunk) {
		if n, err := g.Write(chunk); n != len(chunk) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if out.Len() > guestLogMax+100 || !strings.HasSuffix(out.String(), "console log is full]\n") {
		t.Errorf("%d bytes kept, end %q", out.Len(), out.String()[out.Len()-40:])
	}
	_, _ = g.Write([]byte("Kernel panic - \xff\r\n\n  not syncing\n"))
	if got := g.lastLines(2); got != "Kernel panic - ? | not syncing" {
		t.Errorf("%q", got)
	}
	if !strings.Contains(logged.String(), `line=hello`) || logged.Len() > 2*guestLogMax {
		t.Errorf("%d bytes logged: a line is missing, or there is no bound", logged.Len())
	}
	_, _ = g.Write(bytes.Repeat([]byte("z"), 10*guestTail))
	if len(g.tail) > guestTail || len(g.line) > 11*guestTail {
		t.Errorf("a line without end: %d and %d bytes held", len(g.tail), len(g.line))
	}
}

func TestTimeline(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	tl := newTimeline(control.Now())
	time.Sleep(20 * time.Millisecond)
	tl.agentHello(map[string]uint64{"mmio": 2})
	tl.at(control.MarkVMCreated, time.Now().Add(-10*time.Millisecond))
	tl.at(control.MarkKernelEntry, time.Time{}) // has not happened
	first := tl.marks[control.MarkAgentHello]
	tl.now(control.MarkAgentHello)
	if err := tl.write(dir, map[string]uint64{"mmio": 3}, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir.Name(), control.TimelineFile))
	if err != nil {
		t.Fatal(err)
	}
	var got control.Timeline
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	hello, vm := got.Marks[control.MarkAgentHello], got.Marks[control.MarkVMCreated]
	if hello != first || hello < 20 || vm < hello-15 || vm > hello || got.Exits["mmio"] != 3 || got.HelloExits["mmio"] != 2 || len(got.Marks) != 3 {
		t.Errorf("%+v", got)
	}
}

// TestExitThenVMEnds: both come at once; the exit status and the output count.
func TestExitThenVMEnds(t *testing.T) {
	for range 4 { // select chooses at random
		r := newRig(t, map[string]func([]byte) (any, *wire.Error){
			// A guest that is gone does not answer.
			wire.MethodShutdown: func([]byte) (any, *wire.Error) { select {} },
		})
		mustControl(t, r, control.MethodStart, nil)
		r.agent.exited("c1", 6, 0, 0)
		eventually(t, func() bool { return len(r.c.ended) == 1 })
		r.vmEnded <- vmEnd{vmm.Exit{Reason: vmm.ReasonReset}, nil}
		begin := time.Now()
		if code := r.exit(t); code != 6 || time.Since(begin) > 10*time.Second {
			t.Fatalf("exit status %d after %v", code, time.Since(begin))
		}
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("not within 20 s")
		}
	}
}
