package wire_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/wire"
)

// agent is the other end of a Client, which the test plays.
type agent struct {
	t *testing.T
	*wire.Conn
	raw net.Conn
}

func newClient(t *testing.T, onEvent func(wire.Event)) (*wire.Client, *agent) {
	t.Helper()
	host, guest := socketPair(t)
	c := wire.NewClient(host, onEvent)
	t.Cleanup(func() {
		_ = c.Close()
		_ = guest.Close()
	})
	return c, &agent{t: t, Conn: wire.NewConn(guest), raw: guest}
}

func (a *agent) hello() {
	a.t.Helper()
	if err := a.WriteRaw(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Kernel: "k"})); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) send(f *wire.Frame) {
	a.t.Helper()
	if err := a.WriteFrame(f); err != nil {
		a.t.Fatal(err)
	}
}

func TestClientHello(t *testing.T) {
	c, a := newClient(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Hello(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("before: %v", err)
	}
	a.hello()
	h, err := c.Hello(testContext(t))
	if err != nil || h.Kernel != "k" {
		t.Errorf("%+v, %v", h, err)
	}
}

// Responses come in any order; each call gets its own.
func TestClientCalls(t *testing.T) {
	c, a := newClient(t, nil)
	a.hello()
	const calls = 20
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			var got int
			if err := c.Call(testContext(t), "Echo", i, &got); err != nil || got != i {
				t.Errorf("%d: %d, %v", i, got, err)
			}
		})
	}
	var frames []*wire.Frame
	for range calls {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		frames = append([]*wire.Frame{f}, frames...)
	}
	for _, f := range frames {
		a.send(&wire.Frame{ID: f.ID, Result: f.Params})
	}
	wg.Wait()
}

func TestClientError(t *testing.T) {
	c, a := newClient(t, nil)
	a.hello()
	go func() {
		f, err := a.ReadFrame()
		if err == nil {
			_ = a.WriteFrame(&wire.Frame{ID: f.ID, Error: &wire.Error{Kind: wire.KindNotFound, Message: "container does not exist"}})
		}
	}()
	var werr *wire.Error
	err := c.Call(testContext(t), wire.MethodStats, nil, nil)
	if !errors.As(err, &werr) || werr.Kind != wire.KindNotFound || err.Error() != "container does not exist" {
		t.Errorf("Call: %v", err)
	}
}

// A call that was given up does not confuse the connection when its response
// comes.
func TestClientLateResponse(t *testing.T) {
	c, a := newClient(t, nil)
	a.hello()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "Slow", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Call: %v", err)
	}
	slow, err := a.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	a.send(&wire.Frame{ID: slow.ID})
	a.send(&wire.Frame{ID: slow.ID})
	go func() {
		if f, err := a.ReadFrame(); err == nil {
			_ = a.WriteFrame(&wire.Frame{ID: f.ID})
		}
	}()
	if err := c.Call(testContext(t), "Fast", nil, nil); err != nil {
		t.Errorf("Call: %v", err)
	}
}

// A guest that does not read does not hold up a caller for ever.
func TestClientWriteBlocks(t *testing.T) {
	c, a := newClient(t, nil)
	a.hello()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "Big", make([]byte, 4<<20), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call: %v", err)
	}
}

func TestClientEvents(t *testing.T) {
	events := make(chan *wire.ContainerExited, 10)
	_, a := newClient(t, func(e wire.Event) {
		x, err := e.Exited()
		if err != nil || e.Method != wire.EventContainerExited {
			t.Errorf("%+v, %v", e, err)
		}
		events <- x
	})
	a.hello()
	for i := range 5 {
		p, err := wire.Marshal(&wire.ContainerExited{ID: "c", Status: i})
		if err != nil {
			t.Fatal(err)
		}
		a.send(&wire.Frame{Method: wire.EventContainerExited, Params: p})
	}
	for i := range 5 {
		if x := <-events; x.Status != i {
			t.Errorf("event %d: %+v", i, x)
		}
	}
}

// Garbage ends the connection, with the reason for everybody who waits.
func TestClientGarbage(t *testing.T) {
	for name, send := range map[string]func(a *agent){
		"no hello":         func(a *agent) { a.send(&wire.Frame{Method: "ContainerExited"}) },
		"another version":  func(a *agent) { _ = a.WriteRaw(wire.AppendHello(nil, &wire.Hello{Version: 99})) },
		"hello twice":      func(a *agent) { a.hello(); a.hello() },
		"nameless event":   func(a *agent) { a.hello(); a.send(&wire.Frame{}) },
		"unasked response": func(a *agent) { a.hello(); a.send(&wire.Frame{ID: 77}) },
		"bytes":            func(a *agent) { a.hello(); _, _ = a.raw.Write([]byte("GET / HTTP/1.0\r\n\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			c, a := newClient(t, nil)
			failed := make(chan error, 1)
			go func() { failed <- c.Call(testContext(t), "Wait", nil, nil) }()
			send(a)
			select {
			case <-c.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the connection lives")
			}
			if !errors.Is(c.Err(), wire.ErrProtocol) {
				t.Errorf("Err: %v", c.Err())
			}
			if err := <-failed; err == nil {
				t.Error("Call succeeded")
			}
		})
	}
}

func TestClientEnd(t *testing.T) {
	c, a := newClient(t, nil)
	a.hello()
	if _, err := c.Hello(testContext(t)); err != nil {
		t.Fatal(err)
	}
	_ = a.raw.Close()
	if err := c.Call(testContext(t), "X", nil, nil); err == nil {
		t.Error("Call succeeded")
	}
	if err := c.Err(); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("Err: %v", err)
	}
}
