package server_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/agent/container"
	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/server"
	"github.com/lucid-containers/lucid/internal/wire"
)

// fakeGuest records what the server asks of it.
type fakeGuest struct {
	prepared   int
	configured chan *wire.Configure
	synced     chan struct{}
	ended      chan struct{}
}

func (g *fakeGuest) Configure(c *wire.Configure) error {
	if c.Hostname == "bad" {
		return errors.New("cannot")
	}
	g.configured <- c
	return nil
}

func (g *fakeGuest) Prepare() (*wire.Prepared, error) {
	g.prepared++
	return &wire.Prepared{MemoryBlock: 1 << 27, VCPUs: 8}, nil
}

func (g *fakeGuest) Grow(*wire.Grow) error { return nil }

func (g *fakeGuest) Sync() { close(g.synced) }

func (g *fakeGuest) End() error {
	close(g.ended)
	return nil
}

type fixture struct {
	client *wire.Client
	raw    net.Conn // the host's end
	server *server.Server
	guest  *fakeGuest
	cfg    server.Config
	served chan error
	events chan *wire.ContainerExited
}

func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		server: server.New(), served: make(chan error, 1), events: make(chan *wire.ContainerExited, 10),
		guest: &fakeGuest{configured: make(chan *wire.Configure, 1), synced: make(chan struct{}), ended: make(chan struct{})},
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	guest, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if f.raw, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Write(wire.AppendHello(nil, &wire.Hello{Version: wire.Version})); err != nil {
		t.Fatal(err)
	}
	f.cfg = server.Config{
		Guest:      f.guest,
		Containers: container.NewSet(container.Config{Reaper: reap.New(), OnExit: f.server.Exited, OnOOM: f.server.OOM}),
	}
	go func() { f.served <- f.server.Serve(guest, f.cfg) }()
	f.client = wire.NewClient(f.raw, func(e wire.Event) {
		if x, err := e.Exited(); err == nil {
			f.events <- x
		}
	})
	t.Cleanup(func() { _ = f.client.Close() })
	return f
}

func (f *fixture) call(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return f.client.Call(ctx, method, params, result)
}

func TestRequests(t *testing.T) {
	f := start(t)
	if err := f.call(wire.MethodConfigure, &wire.Configure{Hostname: "h", Entropy: []byte{1}}, nil); err != nil {
		t.Fatal(err)
	}
	if c := <-f.guest.configured; c.Hostname != "h" || len(c.Entropy) != 1 {
		t.Errorf("Configure got %+v", c)
	}
	for _, c := range []struct {
		method     string
		params     any
		kind, text string
	}{
		{"Fly", nil, wire.KindUnknownMethod, "unknown method Fly"},
		{wire.MethodConfigure, &wire.Configure{Hostname: "bad"}, wire.KindFailed, "cannot"},
		{wire.MethodSignal, []int{1}, wire.KindInvalid, "wire: protocol error: number out of range"},
		{wire.MethodStartContainer, &wire.StartContainer{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodSignal, nil, wire.KindNotFound, "container does not exist"},
		{wire.MethodStats, &wire.Stats{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodPids, &wire.Pids{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodUpdate, &wire.Update{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodResizeTTY, &wire.ResizeTTY{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodCloseStdin, &wire.CloseStdin{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodDeleteContainer, &wire.DeleteContainer{ID: "c"}, wire.KindNotFound, "container does not exist"},
		{wire.MethodCreateContainer, &wire.CreateContainer{ID: "c"}, wire.KindInvalid, "process: missing"},
		{wire.MethodExec, &wire.Exec{ID: "c", Process: wire.Process{Args: []string{"x"}, Cwd: "/"}}, wire.KindNotFound, "container does not exist"},
	} {
		var werr *wire.Error
		if err := f.call(c.method, c.params, nil); !errors.As(err, &werr) || werr.Kind != c.kind || werr.Message != c.text {
			t.Errorf("%s: %#v, want %s: %s", c.method, err, c.kind, c.text)
		}
	}
}

// TestPrepare: a guest is prepared by the time of the reply, and serves the next
// connection as it did the first.
func TestPrepare(t *testing.T) {
	f := start(t)
	if err := f.call(wire.MethodPrepare, nil, nil); err != nil {
		t.Fatal(err)
	}
	if f.guest.prepared != 1 {
		t.Errorf("prepared %d times", f.guest.prepared)
	}
	_ = f.client.Close()
	if err := <-f.served; err == nil {
		t.Error("Serve ended without a reason")
	}
	host, guest := net.Pipe()
	go func() { f.served <- f.server.Serve(guest, f.cfg) }()
	go func() { _, _ = guest.Write(wire.AppendHello(nil, &wire.Hello{Version: wire.Version})) }()
	f.client = wire.NewClient(host, nil)
	if _, err := f.client.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.call(wire.MethodConfigure, &wire.Configure{Hostname: "clone"}, nil); err != nil {
		t.Fatal(err)
	}
	if c := <-f.guest.configured; c.Hostname != "clone" {
		t.Errorf("Configure got %+v", c)
	}
}

// The guest's dirty pages are written back before the reply to Shutdown, and the
// guest ends after it.
func TestShutdown(t *testing.T) {
	f := start(t)
	if err := f.call(wire.MethodShutdown, nil, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-f.guest.synced:
	default:
		t.Error("the reply came before the sync")
	}
	select {
	case <-f.guest.ended:
	case <-time.After(20 * time.Second):
		t.Error("the guest goes on")
	}
}

func TestEvents(t *testing.T) {
	f := start(t)
	if err := f.call("Fly", nil, nil); err == nil {
		t.Fatal("no error")
	}
	f.server.Exited(&wire.ContainerExited{ID: "c", Status: 3, Stdout: 5})
	if e := <-f.events; e.ID != "c" || e.Status != 3 || e.Stdout != 5 {
		t.Errorf("event %+v", e)
	}
}

// TestEventsWait: what happens between two connections is told on the next, in order.
func TestEventsWait(t *testing.T) {
	s := server.New()
	s.OOM(&wire.ContainerOOM{ID: "c", Kills: 2})
	s.Exited(&wire.ContainerExited{ID: "c", Status: 137})
	host, guest := net.Pipe()
	t.Cleanup(func() { _ = host.Close() })
	go func() {
		_, _ = guest.Write(wire.AppendHello(nil, &wire.Hello{Version: wire.Version}))
		_ = s.Serve(guest, server.Config{Guest: &fakeGuest{}, Containers: container.NewSet(container.Config{})})
	}()
	got := make(chan wire.Event, 2)
	wire.NewClient(host, func(e wire.Event) { got <- e })
	first, second := <-got, <-got
	if x, err := first.OOM(); err != nil || first.Method != wire.EventContainerOOM || x.ID != "c" || x.Kills != 2 {
		t.Errorf("%+v, %v", first, err)
	}
	if x, err := second.Exited(); err != nil || second.Method != wire.EventContainerExited || x.Status != 137 {
		t.Errorf("%+v, %v", second, err)
	}
}

func TestServeEnds(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"closed":      func(f *fixture) { _ = f.client.Close() },
		"garbage":     func(f *fixture) { _, _ = f.raw.Write([]byte("\x05\x00\x00\x00hello")) },
		"no request":  func(f *fixture) { _, _ = f.raw.Write([]byte("\x02\x00\x00\x00{}")) },
		"no method":   func(f *fixture) { _, _ = f.raw.Write([]byte("\x08\x00\x00\x00{\"id\":1}")) },
		"giant frame": func(f *fixture) { _, _ = f.raw.Write([]byte("\xff\xff\xff\xff")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			end(f)
			select {
			case err := <-f.served:
				if err == nil {
					t.Error("no reason")
				}
			case <-time.After(20 * time.Second):
				t.Error("Serve goes on")
			}
		})
	}
}
