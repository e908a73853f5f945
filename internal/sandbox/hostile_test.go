package sandbox

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/devices/spool"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/vmm"
)

// slowBuffer is a log on a busy host.
type slowBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *slowBuffer) Write(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *slowBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// What a guest's kernel says when it dies is in console.log and in our log, and
// does nothing to the terminal of whoever reads that.
func TestLastWords(t *testing.T) {
	r := newRig(t, nil)
	var file slowBuffer
	var log bytes.Buffer
	r.guestLog = newGuestLog(&file, nil)
	console := spool.New(r.guestLog, 4096)
	r.machine.console = console
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	_, _ = console.Write([]byte("boot\n"))
	time.Sleep(20 * time.Millisecond) // that is being written when the rest comes
	_, _ = console.Write([]byte("Kernel panic - not syncing: \x1b]0;owned\x07\u202edead\n"))
	r.vm.end <- vmEnd{vmm.Exit{Reason: vmm.ReasonReset}, nil}
	if code := r.exit(t); code != failed {
		t.Errorf("exit status %d", code)
	}
	if !strings.Contains(file.String(), "not syncing: \x1b]") { // a file is whole
		t.Errorf("console.log has %q", file.String())
	}
	if !strings.Contains(log.String(), "not syncing: ?]0;owned??dead") {
		t.Errorf("logged %q", log.String())
	}
}

func TestGuestErrorIsOneLine(t *testing.T) {
	err := guestError(&wire.Error{Kind: wire.KindFailed, Message: "exec: \x1b[2J\r\nlucid: all is well\x9b\u2066\xff"})
	if got, want := err.Error(), "exec: ?[2J  lucid: all is well\ufffd?\ufffd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A guest that floods the console does not hide how it ends, and console.log
// stays bounded.
func TestGuestLogFinish(t *testing.T) {
	var out bytes.Buffer
	g := newGuestLog(&out, nil)
	flood := bytes.Repeat([]byte("y"), 32<<10)
	for range 10 * guestLogMax / len(flood) {
		_, _ = g.Write(flood)
	}
	_, _ = g.Write([]byte("\nKernel panic - not syncing: at last\n"))
	g.finish()
	g.finish()
	if !strings.HasSuffix(out.String(), "\nKernel panic - not syncing: at last\n") {
		t.Errorf("the end is %q", out.String()[out.Len()-100:])
	}
	if out.Len() > guestLogMax+guestTail+200 {
		t.Errorf("%d bytes", out.Len())
	}
	out.Reset()
	g = newGuestLog(&out, nil)
	_, _ = g.Write([]byte("short\n"))
	if g.finish(); out.String() != "short\n" {
		t.Errorf("%q", out.String())
	}
}

// A line per reset of a device adds up in a container that lives for years.
func TestLogLimitInTheLongRun(t *testing.T) {
	now := time.Unix(0, 0)
	b := logBucket{tokens: logBurst, last: now}
	const day = 24 * 60 * 60
	lines := 0
	for range 30 * day {
		now = now.Add(time.Second)
		if ok, _ := b.take(now); ok {
			lines++
		}
	}
	if limit := logMany + logBurst + 30*day/60; lines > limit {
		t.Errorf("%d lines in 30 days, want at most %d", lines, limit)
	}
}

// copiers counts the goroutines that copy output.
func copiers() int {
	buf := make([]byte, 1<<20)
	return bytes.Count(buf[:runtime.Stack(buf, true)], []byte("(*end).routineOut("))
}

// A start that the guest refuses may be tried again; the output is then copied
// once and not twice, in pieces.
func TestStartAgain(t *testing.T) {
	refuse := true
	before := copiers() // of other tests: they may end meanwhile, none begins
	r := newRig(t, map[string]func([]byte) (any, *wire.Error){
		wire.MethodStartContainer: func([]byte) (any, *wire.Error) {
			if refuse {
				refuse = false
				return nil, &wire.Error{Kind: wire.KindFailed, Message: "not now"}
			}
			return nil, nil
		},
	})
	if _, err := r.c.Control(t.Context(), control.MethodStart, nil, nil); kindOf(err) != control.KindGuest {
		t.Fatalf("first start: %v", err)
	}
	mustControl(t, r, control.MethodStart, nil)
	time.Sleep(20 * time.Millisecond)
	if after := copiers(); after > before+2 {
		t.Errorf("%d goroutines copy output after two starts, %d before the first", after, before)
	}
}

// A caller that goes away during start leaves a container that runs, and is
// known to run.
func TestStartCallerGone(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, map[string]func([]byte) (any, *wire.Error){
		wire.MethodStartContainer: func([]byte) (any, *wire.Error) {
			close(asked)
			<-release
			return nil, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := r.c.Control(ctx, control.MethodStart, nil, nil); done <- err }()
	<-asked
	cancel()
	time.Sleep(20 * time.Millisecond)
	if s := r.c.status(); s.State != control.StateRunning {
		t.Errorf("state %q while the guest starts the process", s.State)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := r.c.status(); s.State != control.StateRunning {
		t.Errorf("state %q", s.State)
	}
}

// Whatever an agent says about an exit, SIGKILL ends the sandbox at once.
func TestKillEndsHostileExit(t *testing.T) {
	never := func([]byte) (any, *wire.Error) { select {} }
	for name, hostile := range map[string]func(t *testing.T, r *rig){
		"counts that never come": func(_ *testing.T, r *rig) { r.agent.exited("c1", 0, 1<<63, 1<<64-1) },
		"before the start":       func(_ *testing.T, r *rig) { r.agent.exited("c1", 0, 1, 1) },
		"twice":                  func(_ *testing.T, r *rig) { r.agent.exited("c1", 0, 1, 0); r.agent.exited("c1", 1, 0, 0) },
		"shutdown never answers": func(_ *testing.T, r *rig) { r.agent.exited("c1", 0, 0, 0) },
		"unknown processes": func(t *testing.T, r *rig) {
			for range 1000 {
				if err := r.agent.conn.WriteFrame(&wire.Frame{Method: wire.EventContainerExited, Params: raw(wire.ContainerExited{ID: "c1", ExecID: "x"})}); err != nil {
					t.Fatal(err)
				}
			}
			r.agent.exited("c1", 0, 1<<63, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, map[string]func([]byte) (any, *wire.Error){wire.MethodShutdown: never})
			if name != "before the start" {
				mustControl(t, r, control.MethodStart, nil)
			}
			hostile(t, r)
			code := make(chan int, 1)
			go func() { code <- r.exit(t) }()
			select {
			case c := <-code:
				t.Fatalf("it ended by itself: %d", c)
			case <-time.After(50 * time.Millisecond):
			}
			mustControl(t, r, control.MethodKill, control.KillParams{Signal: int(unix.SIGKILL)})
			select {
			case <-code:
			case <-time.After(3 * time.Second):
				t.Fatal("SIGKILL does not end it")
			}
			if !r.vm.stopped() {
				t.Error("the VM was not stopped")
			}
		})
	}
}
