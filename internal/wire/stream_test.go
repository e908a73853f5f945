package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/wire"
)

// transport is one way to carry streams, with both of its ends.
type transport struct {
	name string
	make func(t *testing.T) (wire.Expecter, wire.Opener)
}

var transports = []transport{
	{"connections", connections},
	{"mux", muxes},
}

// connections carries each stream on a connection of its own, as vsock does.
func connections(t *testing.T) (wire.Expecter, wire.Opener) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	wl := wire.NewListener(func() (wire.Stream, error) {
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		return c.(wire.Stream), nil
	})
	t.Cleanup(func() {
		_ = l.Close()
		if err := wl.Wait(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Wait: %v", err)
		}
	})
	return wl, dialOpener(path)
}

type dialOpener string

func (path dialOpener) Open(id uint64) (wire.Stream, error) {
	c, err := net.Dial("unix", string(path))
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(wire.PutStreamID(id)); err != nil {
		return nil, err
	}
	return c.(wire.Stream), nil
}

func muxes(t *testing.T) (wire.Expecter, wire.Opener) {
	t.Helper()
	a, b := socketPair(t)
	ma, mb := wire.NewMux(a), wire.NewMux(b)
	t.Cleanup(func() {
		_ = ma.Close()
		_ = mb.Close()
	})
	return ma, mb
}

func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "p"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// pair opens one stream: the host's end first.
func pair(t *testing.T, e wire.Expecter, o wire.Opener) (wire.Stream, wire.Stream) {
	t.Helper()
	id := wire.NewStreamID()
	exp, err := e.Expect(id)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := o.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	host, err := exp.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	exp.Cancel() // nothing to give up any more
	t.Cleanup(func() {
		_ = host.Close()
		_ = guest.Close()
	})
	return host, guest
}

func eachTransport(t *testing.T, f func(t *testing.T, e wire.Expecter, o wire.Opener)) {
	t.Helper()
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			e, o := tr.make(t)
			f(t, e, o)
		})
	}
}

func TestStreamCarriesBothWays(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, o wire.Opener) {
		host, guest := pair(t, e, o)
		want := make([]byte, 1<<20)
		for i := range want {
			want[i] = byte(rand.Uint32())
		}
		var wg sync.WaitGroup
		send := func(s wire.Stream) {
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(100_000))
				if _, err := s.Write(rest[:n]); err != nil {
					t.Errorf("Write: %v", err)
					return
				}
				rest = rest[n:]
			}
			if err := s.CloseWrite(); err != nil {
				t.Errorf("CloseWrite: %v", err)
			}
		}
		receive := func(s wire.Stream) {
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
			}
		}
		for _, f := range []func(){
			func() { send(host) }, func() { receive(host) },
			func() { send(guest) }, func() { receive(guest) },
		} {
			wg.Go(f)
		}
		wg.Wait()
	})
}

func TestStreamHalfClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, o wire.Opener) {
		host, guest := pair(t, e, o)
		if err := host.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := guest.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("Read after half close: %d, %v; want EOF", n, err)
		}
		if _, err := guest.Write([]byte("still")); err != nil {
			t.Fatal(err)
		}
		if err := guest.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(host)
		if string(got) != "still" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if _, err := host.Write([]byte("x")); err == nil {
			t.Fatal("Write after CloseWrite succeeded")
		}
	})
}

func TestStreamCloseFailsPeer(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, o wire.Opener) {
		host, guest := pair(t, e, o)
		if err := host.Close(); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		for {
			if _, err := guest.Write(p); err != nil {
				break
			}
		}
	})
}

func TestStreamCloseWakesReader(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, o wire.Opener) {
		host, _ := pair(t, e, o)
		ended := make(chan error, 1)
		go func() {
			_, err := host.Read(make([]byte, 1))
			ended <- err
		}()
		_ = host.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Fatal("Read succeeded")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Read still waits after Close")
		}
	})
}

// A stream that nobody reads stops its writer, and only it.
func TestStreamSlowReaderBlocksOnlyItself(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, o wire.Opener) {
		slowHost, slowGuest := pair(t, e, o)
		wrote := make(chan struct{})
		const total = 4 << 20
		go func() {
			defer close(wrote)
			_, _ = slowGuest.Write(make([]byte, total))
			_ = slowGuest.CloseWrite()
		}()
		host, guest := pair(t, e, o)
		for range 100 {
			if _, err := guest.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(host, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-wrote:
			t.Fatal("4 MiB went to a stream that nobody reads")
		default:
		}
		n, err := io.Copy(io.Discard, slowHost)
		if n != total || err != nil {
			t.Fatalf("got %d bytes, %v", n, err)
		}
		<-wrote
	})
}

func TestStreamExpectRefusesIDs(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, _ wire.Opener) {
		if _, err := e.Expect(0); !errors.Is(err, wire.ErrStreamID) {
			t.Errorf("id 0: %v", err)
		}
		first, err := e.Expect(7)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Expect(7); !errors.Is(err, wire.ErrStreamID) {
			t.Errorf("id twice: %v", err)
		}
		first.Cancel()
		again, err := e.Expect(7)
		if err != nil {
			t.Errorf("after Cancel: %v", err)
		}
		again.Cancel()
		for i := range wire.MaxStreams {
			if _, err := e.Expect(uint64(i) + 1); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
		if _, err := e.Expect(1 << 40); !errors.Is(err, wire.ErrTooManyStreams) {
			t.Errorf("one too many: %v", err)
		}
	})
}

// A stream that nobody expects reaches nobody, and hinders nobody.
func TestStreamUnexpectedIsDropped(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, o wire.Opener) {
		exp, err := e.Expect(98)
		if err != nil {
			t.Fatal(err)
		}
		s, err := o.Open(99)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("who listens?"))
		host, guest := pair(t, e, o)
		if _, err := guest.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2)
		if _, err := io.ReadFull(host, got); err != nil || string(got) != "ok" {
			t.Errorf("%q, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := exp.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stream 98: %v", err)
		}
	})
}

func TestStreamWaitEnds(t *testing.T) {
	eachTransport(t, func(t *testing.T, e wire.Expecter, _ wire.Opener) {
		exp, err := e.Expect(5)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := exp.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Wait: %v", err)
		}
	})
}

func TestMuxEndFailsStreams(t *testing.T) {
	a, b := socketPair(t)
	ma, mb := wire.NewMux(a), wire.NewMux(b)
	defer func() { _ = mb.Close() }()
	host, guest := pair(t, ma, mb)
	exp, err := ma.Expect(3)
	if err != nil {
		t.Fatal(err)
	}
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := exp.Wait(testContext(t)); err == nil {
		t.Error("Wait succeeded")
	}
	for name, s := range map[string]wire.Stream{"host": host, "guest": guest} {
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: Read succeeded", name)
		}
	}
	if _, err := ma.Expect(4); err == nil {
		t.Error("Expect on an ended mux succeeded")
	}
}

// A connection that says nothing does not keep others out.
func TestListenerIdleConnections(t *testing.T) {
	e, o := connections(t)
	for range 200 {
		c, err := net.Dial("unix", string(o.(dialOpener)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	pair(t, e, o)
}
