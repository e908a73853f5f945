package sandbox

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/spool"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/vmm"
)

// fakeVM runs until it is stopped or told to end.
type fakeVM struct {
	stop chan struct{}
	once sync.Once
	end  chan vmEnd

	paused atomic.Bool
}

func newFakeVM() *fakeVM { return &fakeVM{stop: make(chan struct{}), end: make(chan vmEnd, 1)} }

func (f *fakeVM) Run(context.Context) (vmm.Exit, error) {
	select {
	case <-f.stop:
		return vmm.Exit{Reason: vmm.ReasonStopped}, nil
	case e := <-f.end:
		return e.exit, e.err
	}
}
func (f *fakeVM) Stop()            { f.once.Do(func() { close(f.stop) }) }
func (f *fakeVM) Pause() error     { f.paused.Store(true); return nil }
func (f *fakeVM) Resume() error    { f.paused.Store(false); return nil }
func (f *fakeVM) isPaused() bool   { return f.paused.Load() }
func (f *fakeVM) Stats() vmm.Stats { return vmm.Stats{} }
func (f *fakeVM) Marks() vmm.Marks { return vmm.Marks{} }
func (f *fakeVM) stopped() bool {
	select {
	case <-f.stop:
		return true
	default:
		return false
	}
}

// agent is a guest agent that does what a test says. It speaks the wire
// protocol over two pipes.
type agent struct {
	t    *testing.T
	conn *wire.Conn
	mux  *wire.Mux
	// handle answers a request; a nil entry answers with success.
	handle map[string]func(params []byte) (any, *wire.Error)

	mu     sync.Mutex
	calls  []string
	create wire.CreateContainer
	in     wire.Stream
	out    [2]wire.Stream
}

type fakeLink struct {
	conn io.ReadWriteCloser
	mux  *wire.Mux
}

func (l *fakeLink) control(context.Context) (io.ReadWriteCloser, error) { return l.conn, nil }
func (l *fakeLink) streams() wire.Expecter                              { return l.mux }

func (a *agent) routine() {
	_ = a.conn.WriteFrame(&wire.Frame{Method: wire.EventHello, Params: raw(wire.Hello{Version: wire.Version, Kernel: "fake"})})
	for {
		f, err := a.conn.ReadFrame()
		if err != nil {
			return
		}
		go a.answer(f)
	}
}

func (a *agent) answer(f *wire.Frame) {
	a.mu.Lock()
	a.calls = append(a.calls, f.Method)
	a.mu.Unlock()
	var result any = struct{}{}
	var failure *wire.Error
	if f.Method == wire.MethodCreateContainer {
		a.open(f.Params)
		result = wire.Created{Pid: 2}
	}
	if h := a.handle[f.Method]; h != nil {
		result, failure = h(f.Params)
	}
	r := &wire.Frame{ID: f.ID, Error: failure}
	if failure == nil {
		r.Result = raw(result)
	}
	_ = a.conn.WriteFrame(r)
}

// open opens the streams that a create names.
func (a *agent) open(params []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := wire.Unmarshal(params, &a.create); err != nil {
		a.t.Error(err)
		return
	}
	dial := func(id uint64) wire.Stream {
		if id == 0 {
			return nil
		}
		s, err := a.mux.Open(id)
		if err != nil {
			a.t.Error(err)
		}
		return s
	}
	a.in = dial(a.create.IO.Stdin)
	a.out = [2]wire.Stream{dial(a.create.IO.Stdout), dial(a.create.IO.Stderr)}
}

func (a *agent) exited(id string, status int, stdout, stderr uint64) {
	a.t.Helper()
	err := a.conn.WriteFrame(&wire.Frame{
		Method: wire.EventContainerExited,
		Params: raw(wire.ContainerExited{ID: id, Status: status, Stdout: stdout, Stderr: stderr}),
	})
	if err != nil {
		a.t.Error(err)
	}
}

func (a *agent) called(method string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if c == method {
			return true
		}
	}
	return false
}

// asJSON is for the control socket.
func asJSON(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// raw is for the agent's channel.
func raw(v any) []byte {
	data, err := wire.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// rig is a sandbox with a fake VM and agent, whose container is created.
type rig struct {
	*sandbox
	vm             *fakeVM
	agent          *agent
	in             *os.File    // our end of fd 0
	out            [2]*os.File // our ends of fds 1 and 2
	stdout, stderr *os.File
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

func newRig(t *testing.T, handle map[string]func([]byte) (any, *wire.Error)) *rig {
	t.Helper()
	spec := oci.Example()
	spec.Process.Terminal = false
	spec.Root.Path = t.TempDir()
	plan, err := oci.Split(spec, "/")
	if err != nil {
		t.Fatal(err)
	}
	return newRigOf(t, plan, handle)
}

func newRigOf(t *testing.T, plan *oci.Plan, handle map[string]func([]byte) (any, *wire.Error)) *rig {
	t.Helper()
	hostCtl, guestCtl := net.Pipe()
	hostStr, guestStr := net.Pipe()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	log := slog.New(slog.DiscardHandler)
	times := newTimeline(control.Now())
	r := &rig{
		vm:    newFakeVM(),
		agent: &agent{t: t, conn: wire.NewConn(guestCtl), mux: wire.NewMux(guestStr), handle: handle},
		sandbox: &sandbox{
			child: &control.Child{StateDir: dir}, log: log, times: times, vmEnded: make(chan vmEnd, 1),
			guestLog: newGuestLog(io.Discard, nil), c: newContainer("c1", plan, times, log),
		},
	}
	r.machine = &machine{vm: r.vm, link: &fakeLink{hostCtl, wire.NewMux(hostStr)}, console: spool.New(r.guestLog, 4096)}
	t.Cleanup(func() { _ = guestCtl.Close(); _ = guestStr.Close(); _ = hostCtl.Close(); _ = hostStr.Close() })
	go func() { exit, err := r.vm.Run(context.Background()); r.vmEnded <- vmEnd{exit, err} }()
	go r.agent.routine()
	var stdin, stdout, stderr *os.File
	stdin, r.in = pipe(t)
	r.out[0], stdout = pipe(t)
	r.out[1], stderr = pipe(t)
	if err := r.meetAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.c.create(t.Context(), r.machine.link.streams(), newStdio(false, stdin, stdout, stderr)); err != nil {
		t.Fatal(err)
	}
	r.stdout, r.stderr = stdout, stderr
	return r
}

// exit waits for the sandbox's exit status, as Main does.
func (r *rig) exit(t *testing.T) int {
	t.Helper()
	done := make(chan int, 1)
	go func() { code := r.wait(); r.c.finish(code); done <- code }()
	select {
	case code := <-done:
		return code
	case <-time.After(20 * time.Second):
		t.Fatal("the sandbox does not end")
		return 0
	}
}
