package spool

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate is a host writer that blocks while it is shut.
type gate struct {
	mu   sync.Mutex
	open *sync.Cond
	shut bool
	buf  bytes.Buffer
}

func newGate(shut bool) *gate {
	g := &gate{shut: shut}
	g.open = sync.NewCond(&g.mu)
	return g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.open.Broadcast()
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.open.Wait()
	}
	return g.buf.Write(p)
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

func TestOrder(t *testing.T) {
	g := newGate(false)
	s := newSpool(g, 600, time.Minute, time.Minute) // on a busy machine too
	var want bytes.Buffer
	for i := range 2000 {
		p := bytes.Repeat([]byte{byte('a' + i%26)}, i%700)
		want.Write(p)
		if n, err := s.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := g.String(); got != want.String() {
		t.Fatalf("got %d bytes, want %d, or in another order", len(got), want.Len())
	}
}

// TestStuckWriter checks that a writer that never moves costs the guest one
// Patience in all, and that the log says what was lost.
func TestStuckWriter(t *testing.T) {
	g := newGate(true)
	s := newSpool(g, minSize, Patience, time.Minute)
	start := time.Now()
	const each, times = 100, 1000
	for range times {
		_, _ = s.Write(bytes.Repeat([]byte{'x'}, each))
	}
	if d := time.Since(start); d > 20*Patience {
		t.Fatalf("%d writes to a stuck writer took %v", times, d)
	}
	g.set(false)
	for range 500 { // until it has moved
		if strings.Contains(g.String(), "dropped") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, _ = s.Write([]byte("after"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("x", minSize) + string(mark(each*times-minSize)) + "after"
	if got := g.String(); got != want {
		t.Fatalf("log is %q\nwant   %q", got, want)
	}
}

// TestSlowWriter checks that a slow writer throttles and loses nothing.
func TestSlowWriter(t *testing.T) {
	g := newGate(false)
	s := newSpool(writerFunc(func(p []byte) (int, error) {
		time.Sleep(time.Millisecond)
		return g.Write(p)
	}), minSize, time.Minute, time.Minute)
	for range 200 {
		_, _ = s.Write(bytes.Repeat([]byte{'x'}, 100))
	}
	_ = s.Close()
	if got := g.String(); got != strings.Repeat("x", 200*100) {
		t.Fatalf("got %d bytes, want %d", len(got), 200*100)
	}
}

func TestCloseOfStuckWriter(t *testing.T) {
	g := newGate(true)
	s := New(g, minSize)
	_, _ = s.Write([]byte("x"))
	start := time.Now()
	if err := s.Close(); err == nil {
		t.Fatal("Close says that all was written")
	}
	if d := time.Since(start); d > 10*CloseWait {
		t.Fatalf("Close took %v", d)
	}
	g.set(false)
	<-s.done
	if n, err := s.Write([]byte("late")); n != 4 || err != nil {
		t.Fatalf("Write after Close = %d, %v", n, err)
	}
}

func TestConcurrentWriters(t *testing.T) {
	g := newGate(false)
	s := newSpool(g, minSize, time.Minute, time.Minute)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				_, _ = s.Write([]byte("0123456789"))
			}
		})
	}
	wg.Wait()
	_ = s.Close()
	if got := len(g.String()); got != 4*500*10 {
		t.Fatalf("got %d bytes, want %d", got, 4*500*10)
	}
}

func TestNilWriter(t *testing.T) {
	s := New(nil, 0)
	for range 100 {
		_, _ = s.Write(make([]byte, minSize))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

var _ io.Writer = (*Spool)(nil)
