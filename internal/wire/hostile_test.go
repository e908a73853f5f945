package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/wire"
)

// A guest that does not read its control channel costs the host one writer,
// however often it is called.
func TestCallsToDeafGuest(t *testing.T) {
	host, guest := net.Pipe()
	c := wire.NewClient(host, nil)
	defer func() { _ = guest.Close(); _ = c.Close() }()
	before := runtime.NumGoroutine()
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		if err := c.Call(ctx, wire.MethodSignal, strings.Repeat("x", 1000), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Call: %v", err)
		}
		cancel()
	}
	time.Sleep(20 * time.Millisecond) // what ends, ends
	if after := runtime.NumGoroutine(); after > before+5 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}

// A Hello is kept for the life of the sandbox, so it may not be large.
func TestHelloTooLong(t *testing.T) {
	c, a := newClient(t, nil)
	params, err := wire.Marshal(wire.Hello{Version: wire.Version, Kernel: strings.Repeat("6", 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	a.send(&wire.Frame{Method: wire.EventHello, Params: params})
	if _, err := c.Hello(t.Context()); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("Hello: %v", err)
	}
}

// An error does not carry megabytes of the guest's into a log.
func TestErrorIsShort(t *testing.T) {
	c, a := newClient(t, nil)
	go func() { _ = a.WriteRaw(frameBytes(strings.Repeat("\xff", 4<<20))) }()
	_, err := c.Hello(t.Context())
	if !errors.Is(err, wire.ErrProtocol) || len(err.Error()) > 1000 {
		t.Errorf("%d bytes of error, protocol error: %v", len(err.Error()), errors.Is(err, wire.ErrProtocol))
	}
}

// A guest that does not read the streams' port cannot hold up a Close.
func TestMuxCloseToDeafGuest(t *testing.T) {
	host, guest := net.Pipe()
	m := wire.NewMux(host)
	defer func() { _ = m.Close(); _ = guest.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for id := range uint64(3) {
			e, err := m.Expect(id + 1)
			if err != nil {
				t.Error(err)
				return
			}
			e.Cancel()
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Cancel waits for the guest")
	}
}

// A connection that does not say which stream it is, is closed in time.
func TestListenerSilentConnection(t *testing.T) {
	conns := make(chan wire.Stream)
	l := wire.NewListenerPatience(func() (wire.Stream, error) {
		c, ok := <-conns
		if !ok {
			return nil, io.EOF
		}
		return c, nil
	}, 50*time.Millisecond)
	defer func() { close(conns); _ = l.Wait() }()
	for _, said := range []string{"", "1234567"} {
		a, b := socketPair(t)
		conns <- a.(wire.Stream)
		if _, err := b.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
		_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("after %q: %v", said, err)
		}
		_ = b.Close()
	}
	// One that speaks in time lives on.
	e, err := l.Expect(7)
	if err != nil {
		t.Fatal(err)
	}
	a, b := socketPair(t)
	defer b.Close()
	conns <- a.(wire.Stream)
	if _, err := b.Write(append(wire.PutStreamID(7), 'x')); err != nil {
		t.Fatal(err)
	}
	s, err := e.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
	_ = s.Close()
}
