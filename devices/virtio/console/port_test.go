package console_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

func TestBothWays(t *testing.T) {
	_, host, rx, tx := opened(t)
	go func() {
		for i := range 100 {
			_, _ = host.Write(bytes.Repeat([]byte{byte(i)}, 10+i))
		}
	}()
	var got []byte
	for want := 100*10 + 99*100/2; len(got) < want; {
		u := rx.WaitUsed()
		got = append(got, rx.Data(u)...)
		rx.Add(u.Bufs...)
		rx.Kick()
	}
	for i, at := 0, 0; i < 100; i++ {
		if !bytes.Equal(got[at:at+10+i], bytes.Repeat([]byte{byte(i)}, 10+i)) {
			t.Fatalf("write %d arrived wrong", i)
		}
		at += 10 + i
	}
	for i := range 100 {
		want := bytes.Repeat([]byte{byte(i)}, 1+i)
		tx.Add(tx.Out(want))
		tx.Kick()
		p := make([]byte, 1+i)
		within(t, "Read", func() {
			if _, err := io.ReadFull(host, p); err != nil {
				t.Error(err)
			}
		})
		if !bytes.Equal(p, want) {
			t.Fatalf("read %x, want %x", p, want)
		}
		tx.WaitUsed()
	}
}

// TestBulk pushes megabytes both ways at once through small and odd buffers.
func TestBulk(t *testing.T) {
	_, host, rx, tx := opened(t)
	const size = 8 << 20
	data := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	var wg sync.WaitGroup
	wg.Go(func() { // host writes
		for at := 0; at < size; {
			n, err := host.Write(data[at:min(size, at+100_003)])
			if err != nil {
				t.Error(err)
				return
			}
			at += n
		}
	})
	wg.Go(func() { // host reads
		got := make([]byte, size)
		if _, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("guest to host: %v", err)
		}
	})
	wg.Go(func() { // guest writes chunks of up to 32 KiB, as Linux does
		bufs := make([]virtqtest.Buf, 8)
		for i := range bufs {
			bufs[i] = tx.Out(make([]byte, 32<<10))
		}
		flying := 0
		for at, i := 0, 0; at < size; i++ {
			if flying == len(bufs) {
				tx.WaitUsed()
				flying--
			}
			b := bufs[i%len(bufs)]
			n := min(size-at, 1+i*37%len(data)%(32<<10))
			if err := tx.Mem.WriteAt(data[at:at+n], b.Addr); err != nil {
				t.Error(err)
			}
			tx.Add(virtqtest.Buf{Addr: b.Addr, Len: uint32(n)})
			tx.Kick()
			at, flying = at+n, flying+1
		}
	})
	got := make([]byte, 0, size)
	for len(got) < size {
		u := rx.WaitUsed()
		got = append(got, rx.Data(u)...)
		rx.Add(u.Bufs...)
		rx.Kick()
	}
	wg.Wait()
	if !bytes.Equal(got, data) {
		t.Error("host to guest: wrong data")
	}
}

// TestSlowReader: what the host does not read stays un-pushed.
func TestSlowReader(t *testing.T) {
	_, host, _, tx := opened(t)
	for range 64 {
		tx.Add(tx.Out([]byte("abcd")))
	}
	tx.ForceKick()
	tx.NoUsed(30 * time.Millisecond)
	p := make([]byte, 6)
	if _, err := io.ReadFull(host, p); err != nil || string(p) != "abcdab" {
		t.Fatalf("read %q, %v", p, err)
	}
	tx.WaitUsed()
	tx.NoUsed(10 * time.Millisecond) // the second chain is half read
	p = make([]byte, 4*64-6)
	if _, err := io.ReadFull(host, p); err != nil {
		t.Fatal(err)
	}
	for range 63 {
		tx.WaitUsed()
	}
}

// TestSlowGuest: a Write waits for buffers, and each way out of the wait works.
func TestSlowGuest(t *testing.T) {
	fillUp := func(t *testing.T) (g *guest, host console.Port, result <-chan error) {
		g, host, rx, _ := opened(t)
		done := make(chan error, 1)
		go func() {
			_, err := host.Write(make([]byte, 65*page))
			done <- err
		}()
		for rx.UsedIdx() != 64 {
			time.Sleep(time.Millisecond)
		}
		select {
		case err := <-done:
			t.Fatalf("Write ended without room: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		return g, host, done
	}
	wait := func(t *testing.T, result <-chan error) error {
		t.Helper()
		select {
		case err := <-result:
			return err
		case <-time.After(virtqtest.Timeout):
			t.Fatal("Write still blocked")
			return nil
		}
	}
	t.Run("guest makes room", func(t *testing.T) {
		g, _, result := fillUp(t)
		rx := g.drv.Queue(4)
		u := rx.WaitUsed()
		rx.Add(u.Bufs...)
		rx.Kick()
		if err := wait(t, result); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("guest closes", func(t *testing.T) {
		g, _, result := fillUp(t)
		g.send(1, portOpen, 0)
		if err := wait(t, result); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	})
	t.Run("guest resets", func(t *testing.T) {
		g, _, result := fillUp(t)
		g.drv.Reset()
		if err := wait(t, result); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	})
	t.Run("host closes", func(t *testing.T) {
		_, host, result := fillUp(t)
		_ = host.Close()
		if err := wait(t, result); !errors.Is(err, os.ErrClosed) {
			t.Fatal(err)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		g, _, result := fillUp(t)
		rx := g.drv.Queue(4)
		rx.SetAvailIdx(rx.AvailIdx() + 1000)
		rx.ForceKick()
		if err := wait(t, result); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		g.drv.WaitNeedsReset()
	})
}

// TestGuestCloses: data, then one EOF per close, then the next session.
func TestGuestCloses(t *testing.T) {
	g, host, _, tx := opened(t)
	for i := range 3 {
		tx.Add(tx.Out([]byte("last words")))
		tx.Kick()
		g.send(1, portOpen, 0)
		g.send(1, portOpen, 0) // twice is once
		within(t, "Read", func() {
			p, err := io.ReadAll(host)
			if err != nil || string(p) != "last words" {
				t.Errorf("session %d: read %q, %v", i, p, err)
			}
		})
		got := make(chan byte, 1)
		go func() {
			var p [1]byte
			_, _ = host.Read(p[:])
			got <- p[0]
		}()
		select {
		case <-got:
			t.Fatal("Read did not wait for the next open")
		case <-time.After(10 * time.Millisecond):
		}
		g.send(1, portOpen, 1)
		tx.Add(tx.Out([]byte("!")))
		tx.Kick()
		within(t, "Read after reopen", func() {
			if b := <-got; b != '!' {
				t.Errorf("read %q", b)
			}
		})
	}
}

func TestWriteWaitsForOpen(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a"}})
	host := mustPort(t, g.dev, "a")
	done := make(chan error, 1)
	go func() {
		_, err := host.Write([]byte("early"))
		done <- err
	}()
	rx, _ := g.port(1)
	rx.NoUsed(20 * time.Millisecond)
	g.send(1, portOpen, 1)
	if got := rx.Data(rx.WaitUsed()); string(got) != "early" {
		t.Fatalf("guest read %q", got)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestHostCloseUnblocksRead(t *testing.T) {
	_, host, _, tx := opened(t)
	done := make(chan error, 1)
	go func() {
		_, err := host.Read(make([]byte, 1))
		done <- err
	}()
	time.Sleep(5 * time.Millisecond)
	_ = host.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	// With no host end, what the guest sends is thrown away and not held.
	tx.Send([]byte("nobody"))
}

// TestReset: what was sent before is read, then EOF, and the port works again.
// The reset comes right after the kick, as when an agent says its last word and
// powers off.
func TestReset(t *testing.T) {
	g, host, _, tx := opened(t)
	for range 10 {
		tx.Add(tx.Out([]byte("last ")), tx.Out([]byte("words")))
		tx.Add(tx.Out([]byte("!")))
		tx.Kick()
		g.drv.Reset()
		within(t, "ReadAll", func() {
			if p, err := io.ReadAll(host); err != nil || string(p) != "last words!" {
				t.Errorf("read %q, %v", p, err)
			}
		})
		g.start()
		_, tx = g.port(1)
		g.expect(message{1, portName, 1, "lucid.control"}, message{1, portOpen, 1, ""})
		g.send(1, portOpen, 1)
		tx.Add(tx.Out([]byte("hello")))
		tx.Kick()
		p := make([]byte, 5)
		within(t, "Read", func() { _, _ = io.ReadFull(host, p) })
		if string(p) != "hello" {
			t.Fatalf("read %q after reset", p)
		}
	}
}

// TestResetKeepsBounded: a guest that sends and resets for ever does not fill
// the host's memory, and half-read chains are kept right.
func TestResetKeepsBounded(t *testing.T) {
	g, host, _, tx := opened(t)
	big := tx.Out(bytes.Repeat([]byte("x"), 1<<20))
	for i := range 5 {
		for range 8 {
			tx.Add(big)
		}
		tx.Kick()
		if i == 0 {
			p := make([]byte, 1000)
			if _, err := io.ReadFull(host, p); err != nil {
				t.Fatal(err)
			}
		}
		g.drv.Reset()
		g.start()
		_, tx = g.port(1)
	}
	within(t, "ReadAll", func() {
		if p, err := io.ReadAll(host); err != nil || len(p) != 2<<20 {
			t.Errorf("read %d bytes, %v", len(p), err)
		}
	})
}

func BenchmarkGuestToHost(b *testing.B) {
	_, host, _, tx := opened(b)
	const chunk = 32 << 10
	bufs := make([]virtqtest.Buf, 16)
	for i := range bufs {
		bufs[i] = tx.Out(make([]byte, chunk))
	}
	go func() { _, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{host}, make([]byte, 256<<10)) }()
	b.SetBytes(chunk)
	b.ReportAllocs()
	i := 0
	for ; b.Loop(); i++ {
		if i >= len(bufs) {
			tx.WaitUsed()
		}
		tx.Add(bufs[i%len(bufs)])
		tx.Kick()
	}
}

func BenchmarkHostToGuest(b *testing.B) {
	_, host, rx, _ := opened(b)
	const chunk = 64 << 10
	go func() {
		for p := make([]byte, chunk); ; {
			if _, err := host.Write(p); err != nil {
				return
			}
		}
	}()
	b.SetBytes(chunk)
	b.ReportAllocs()
	for b.Loop() {
		for got := 0; got < chunk; {
			u := rx.WaitUsed()
			got += int(u.Written)
			rx.Add(u.Bufs...)
			rx.Kick()
		}
	}
	_ = host.Close()
}
