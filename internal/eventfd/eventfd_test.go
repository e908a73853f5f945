package eventfd

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newFD(t *testing.T) *FD {
	t.Helper()
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func waitResult(f *FD) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f.Wait() }()
	return done
}

func expect(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("Wait did not return")
		return nil
	}
}

func TestSignalBeforeWait(t *testing.T) {
	f := newFD(t)
	for range 3 {
		if err := f.Signal(); err != nil {
			t.Fatal(err)
		}
	}
	if err := expect(t, waitResult(f)); err != nil {
		t.Fatal(err)
	}
	// The three signals were one: the next Wait blocks until there is another.
	done := waitResult(f)
	select {
	case err := <-done:
		t.Fatalf("Wait returned without a signal: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := f.Signal(); err != nil {
		t.Fatal(err)
	}
	if err := expect(t, done); err != nil {
		t.Fatal(err)
	}
}

func TestCloseWakesWait(t *testing.T) {
	f := newFD(t)
	a, b := waitResult(f), waitResult(f)
	time.Sleep(10 * time.Millisecond)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, done := range []<-chan error{a, b} {
		if err := expect(t, done); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("Wait after Close: %v", err)
		}
	}
	if err := f.Wait(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("later Wait: %v", err)
	}
	if err := f.Signal(); err == nil {
		t.Fatal("Signal after Close worked")
	}
}

func TestSignalNeverBlocks(t *testing.T) {
	f := newFD(t)
	var full [8]byte
	binary.LittleEndian.PutUint64(full[:], 1<<64-2) // eventfd(2): the largest count
	if _, err := unix.Write(f.FD(), full[:]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Signal() }()
	if err := expect(t, done); err != nil {
		t.Fatal(err)
	}
	if err := expect(t, waitResult(f)); err != nil {
		t.Fatal(err)
	}
}

// TestKernelSignal writes to the descriptor the way KVM_IOEVENTFD does, from
// outside the runtime's knowledge.
func TestKernelSignal(t *testing.T) {
	f := newFD(t)
	done := waitResult(f)
	time.Sleep(10 * time.Millisecond)
	if _, err := unix.Write(f.FD(), one[:]); err != nil {
		t.Fatal(err)
	}
	if err := expect(t, done); err != nil {
		t.Fatal(err)
	}
}

func TestConcurrentClose(t *testing.T) {
	for range 50 {
		f := newFD(t)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for f.Signal() == nil {
				}
			})
		}
		done := waitResult(f)
		_ = f.Close()
		wg.Wait()
		expect(t, done)
	}
}

func TestSignalAllocates(t *testing.T) {
	f := newFD(t)
	if n := testing.AllocsPerRun(100, func() { _ = f.Signal() }); n != 0 {
		t.Fatalf("Signal allocates %v times", n)
	}
}
