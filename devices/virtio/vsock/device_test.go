package vsock_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/devices/virtio/vsock/vsocktest"
)

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []vsock.Config{
		{GuestCID: 1},
		{GuestCID: 2},
		{GuestCID: 1<<32 - 1},
		{MaxConns: -1},
		{MaxConns: 1 << 20, Buffer: 1 << 40},
		{MaxConns: 1024, Buffer: 1 << 20},
		{Buffer: -1},
	} {
		if _, err := vsock.New(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
}

// TestThroughTransport drives the device as a guest kernel does, through the
// registers of virtio-mmio.
func TestThroughTransport(t *testing.T) {
	dev, err := vsock.New(vsock.Config{GuestCID: 77})
	if err != nil {
		t.Fatal(err)
	}
	g := virtqtest.NewGuest(t)
	tr, err := mmio.New(mmio.Config{Device: dev, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time after a reset
		d.Start(0)
		if id, n := d.Get32(virtqtest.RegDeviceID), d.Queues(); id != 19 || n != 3 {
			t.Fatalf("device %d with %d queues", id, n)
		}
		if cid := binary.LittleEndian.Uint64(d.Config(0, 8)); cid != 77 {
			t.Fatalf("guest CID %d", cid)
		}
		rx, tx := d.Queue(0), d.Queue(1)
		rx.Add(rx.In(4096))
		rx.Kick()
		h := vsocktest.Header{SrcCID: 77, DstCID: 2, SrcPort: 9, DstPort: port, Type: 1, Op: vsocktest.OpRequest, BufAlloc: 4096}
		tx.Send(h.Bytes())
		if p := rx.Data(rx.WaitUsed()); binary.LittleEndian.Uint16(p[30:]) != vsocktest.OpResponse {
			t.Fatalf("answer %x", p)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c.RemoteAddr().String() != "77:9" || c.LocalAddr().String() != "2:1024" || c.LocalAddr().Network() != "vsock" {
			t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
		}
		h.Op, h.Len = vsocktest.OpData, 5
		tx.Send(append(h.Bytes(), "hello"...))
		buf := make([]byte, 5)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
			t.Fatalf("read %q, %v", buf, err)
		}
		d.Reset()
		if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after reset: %v", err)
		}
		_ = c.Close()
	}
}

// TestReset: everything that waits is woken with an error, listeners stay, and
// guest memory stays as it was.
func TestReset(t *testing.T) {
	dev := newDevice(t)
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for range 3 {
		g := vsocktest.NewGuest(t, dev)
		g.Send(packet(vsocktest.OpRequest), nil)
		expect(t, g, vsocktest.OpResponse)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		lost := packet(vsocktest.OpRequest)
		lost.SrcPort++
		g.Send(lost, nil) // stays in the backlog
		expect(t, g, vsocktest.OpResponse)
		errs := make(chan error, 3)
		go func() { _, err := c.Read(make([]byte, 10)); errs <- err }()
		go func() { _, err := c.Write(make([]byte, 1<<20)); errs <- err }() // 64 KiB of credit
		go func() { _, err := dev.Dial(context.Background(), 1); errs <- err }()
		for range 20 { // the credit, one REQUEST, one CREDIT_REQUEST
			if _, _, ok := g.TryRecv(quiet); !ok {
				break
			}
		}
		g.Stop()
		for range 3 {
			select {
			case err := <-errs:
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("got %v, want ECONNRESET", err)
				}
			case <-time.After(virtqtest.Timeout):
				t.Fatal("something still waits")
			}
		}
		image := make([]byte, virtqtest.RAMSize)
		if err := g.Mem.Mem.ReadAt(image, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("late")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write after reset: %v", err)
		}
		_ = c.Close()
		if !bytes.Equal(image, g.Mem.Read(0, virtqtest.RAMSize)) {
			t.Error("guest memory changed after the reset")
		}
		if wire, guest, host, _ := dev.Count(); wire != 0 || guest != 0 || host != 0 {
			t.Errorf("%d on the wire, %d and %d counted", wire, guest, host)
		}
	}
	waitGoroutines(t, before)
}

func waitGoroutines(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(virtqtest.Timeout); runtime.NumGoroutine() > want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, want %d\n%s", runtime.NumGoroutine(), want, buf[:runtime.Stack(buf, true)])
		}
	}
}

// TestResetInFlight resets the device while many connections are busy.
func TestResetInFlight(t *testing.T) {
	dev := newDevice(t)
	for range 10 {
		g := vsocktest.NewGuest(t, dev)
		s := vsocktest.NewStack(g)
		var wg sync.WaitGroup
		for range 4 {
			host, guest := connect(t, dev, s)
			wg.Go(func() { _, _ = io.Copy(guest, guest) })
			wg.Go(func() { _, _ = io.Copy(io.Discard, host) })
			wg.Go(func() {
				for {
					if _, err := host.Write(make([]byte, 10000)); err != nil {
						_ = host.Close()
						return
					}
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		g.Stop()
		wg.Wait()
	}
	if wire, guest, host, _ := dev.Count(); wire != 0 || guest != 0 || host != 0 {
		t.Errorf("%d on the wire, %d and %d counted", wire, guest, host)
	}
}

func TestDial(t *testing.T) {
	dev := newDevice(t)
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	if _, err := dev.Dial(ctx, port); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no guest: %v", err)
	}
	type result struct {
		c   net.Conn
		err error
	}
	early := make(chan result, 1)
	go func() { c, err := dev.Dial(context.Background(), port); early <- result{c, err} }()
	time.Sleep(quiet)
	g := vsocktest.NewGuest(t, dev)
	h, _ := expect(t, g, vsocktest.OpRequest)
	if h.SrcPort < 1<<30 || h.DstPort != port || h.BufAlloc == 0 {
		t.Errorf("REQUEST %+v", h)
	}
	g.Send(vsocktest.Header{SrcPort: port, DstPort: h.SrcPort, Op: vsocktest.OpResponse, BufAlloc: 1000}, nil)
	r := <-early
	if r.err != nil {
		t.Fatal(r.err)
	}

	go func() { c, err := dev.Dial(context.Background(), port); early <- result{c, err} }()
	h2, _ := expect(t, g, vsocktest.OpRequest)
	if h2.SrcPort == h.SrcPort {
		t.Error("one host port for two connections to one guest port")
	}
	g.Send(vsocktest.Header{SrcPort: port, DstPort: h2.SrcPort, Op: vsocktest.OpReset}, nil)
	if r := <-early; !errors.Is(r.err, syscall.ECONNREFUSED) || r.err.Error() != "dial vsock 3:1024: connection refused" {
		t.Errorf("refused: %v", r.err)
	}

	ctx, cancel = context.WithTimeout(context.Background(), quiet)
	defer cancel()
	if _, err := dev.Dial(ctx, port); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	expect(t, g, vsocktest.OpRequest)
	expect(t, g, vsocktest.OpReset) // given up

	// A server that says its piece and leaves before Dial has returned.
	go func() { c, err := dev.Dial(context.Background(), port); early <- result{c, err} }()
	h3, _ := expect(t, g, vsocktest.OpRequest)
	g.Send(vsocktest.Header{SrcPort: port, DstPort: h3.SrcPort, Op: vsocktest.OpResponse}, nil)
	g.Send(vsocktest.Header{SrcPort: port, DstPort: h3.SrcPort, Op: vsocktest.OpData}, []byte("bye"))
	g.Send(vsocktest.Header{SrcPort: port, DstPort: h3.SrcPort, Op: vsocktest.OpShutdown, Flags: 3}, nil)
	r = <-early
	if r.err != nil {
		t.Fatal(r.err)
	}
	if p, err := io.ReadAll(r.c); string(p) != "bye" || err != nil {
		t.Errorf("read %q, %v", p, err)
	}
	_ = dev.Close()
	if _, err := dev.Dial(context.Background(), port); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDialLimit(t *testing.T) {
	dev, err := vsock.New(vsock.Config{MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	s := vsocktest.NewStack(vsocktest.NewGuest(t, dev))
	s.Listen(port)
	var first net.Conn
	for i := range 3 {
		c, err := dev.Dial(context.Background(), port)
		if i < 2 && err != nil || i == 2 && !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("dial %d: %v", i, err)
		}
		if i == 0 {
			first = c
		}
	}
	_ = first.Close()
	for end := time.Now().Add(virtqtest.Timeout); ; time.Sleep(time.Millisecond) {
		if _, err := dev.Dial(context.Background(), port); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("dial after a close: %v", err)
		}
	}
}

func TestListener(t *testing.T) {
	dev := newDevice(t)
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dev.Listen(port); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second Listen: %v", err)
	}
	g := vsocktest.NewGuest(t, dev)
	g.Send(packet(vsocktest.OpRequest), nil)
	expect(t, g, vsocktest.OpResponse)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	expect(t, g, vsocktest.OpReset) // nobody has accepted it
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "accept vsock 2:1024") {
		t.Errorf("Accept after Close: %v", err)
	}
	g.Send(packet(vsocktest.OpRequest), nil)
	expect(t, g, vsocktest.OpReset)
	if _, guest, _, _ := dev.Count(); guest != 0 {
		t.Errorf("%d connections counted", guest)
	}
	l, err = dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	g.Send(packet(vsocktest.OpRequest), nil)
	expect(t, g, vsocktest.OpResponse)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := l.Accept(); done <- err }()
	time.Sleep(quiet)
	_ = dev.Close()
	expect(t, g, vsocktest.OpReset)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read at Close of the device: %v", err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept at Close of the device: %v", err)
	}
}

// TestHalfClose: each side ends its direction, and the other goes on.
func TestHalfClose(t *testing.T) {
	dev := newDevice(t)
	s := vsocktest.NewStack(vsocktest.NewGuest(t, dev))
	host, guest := connect(t, dev, s)
	if err := host.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(guest); len(p) != 0 || err != nil {
		t.Errorf("guest read %q, %v", p, err)
	}
	if _, err := host.Write([]byte{1}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	if _, err := guest.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := guest.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(host); string(p) != "answer" || err != nil {
		t.Errorf("host read %q, %v", p, err)
	}
	_ = host.Close()

	host, guest = connect(t, dev, s)
	if err := host.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read after CloseRead: %v", err)
	}
	var err error
	for err == nil {
		_, err = guest.Write([]byte("x"))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("guest Write: %v", err)
	}
	_ = host.Close()

	// A guest program that exits: SHUTDOWN both, and the guest waits for RST.
	host, guest = connect(t, dev, s)
	if _, err := guest.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	_ = guest.Close()
	for end := time.Now().Add(virtqtest.Timeout); s.Conns() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the guest still has %d connections", s.Conns())
		}
	}
	if p, err := io.ReadAll(host); string(p) != "last words" || err != nil {
		t.Errorf("host read %q, %v", p, err)
	}
	if _, err := host.Write([]byte{1}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write to a guest that left: %v", err)
	}
	if err := host.CloseWrite(); err != nil {
		t.Errorf("CloseWrite to a guest that left: %v", err)
	}
	_ = host.Close()
	if wire, n, _, _ := dev.Count(); wire != 0 || n != 0 {
		t.Errorf("%d on the wire, %d counted", wire, n)
	}
}

// TestCloseTimeout: a guest that does not answer SHUTDOWN gets RST, and one that
// does not take the RST either is forgotten.
func TestCloseTimeout(t *testing.T) {
	dev := newDevice(t)
	dev.SetCloseTimeout(20 * time.Millisecond)
	g := vsocktest.Boot(t, dev, vsocktest.Options{RXBuffers: -1})
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	g.OfferRX(1)
	g.Send(packet(vsocktest.OpRequest), nil)
	expect(t, g, vsocktest.OpResponse)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if h, _ := expect(t, g, vsocktest.OpShutdown); h.Flags != vsocktest.ShutBoth {
		t.Errorf("SHUTDOWN of %d", h.Flags)
	}
	expect(t, g, vsocktest.OpReset)

	h := packet(vsocktest.OpRequest)
	h.SrcPort = 1
	g.Send(h, nil)
	expect(t, g, vsocktest.OpResponse)
	if c, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("fills the one buffer")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for end := time.Now().Add(virtqtest.Timeout); ; time.Sleep(time.Millisecond) {
		if wire, n, _, _ := dev.Count(); wire == 0 && n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the connection is never forgotten")
		}
	}
	expect(t, g, vsocktest.OpData)
	nothing(t, g)
}

func TestTransportReset(t *testing.T) {
	dev, g, c := attacker(t)
	q := g.Queues[vsocktest.Event]
	wait := func() {
		t.Helper()
		if u := q.WaitUsed(); u.Written != 4 || binary.LittleEndian.Uint32(q.Data(u)) != 0 {
			t.Errorf("event %x", q.Data(u))
		}
	}
	q.Add(q.In(4))
	q.Add(q.In(8))
	q.Kick()
	if err := dev.TransportReset(); err != nil {
		t.Fatal(err)
	}
	wait()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read: %v", err)
	}
	_ = c.Close()
	g.Send(packet(vsocktest.OpRequest), nil)
	expect(t, g, vsocktest.OpResponse) // the listener is still there
	for range 3 {                      // the second and third wait for a buffer, and are one
		if err := dev.TransportReset(); err != nil {
			t.Fatal(err)
		}
	}
	wait()
	q.Add(q.In(4))
	q.ForceKick()
	wait()
	dev.Reset()
	if err := dev.TransportReset(); err != nil {
		t.Errorf("without a guest: %v", err)
	}
}

// TestNoEventIdx and indirect descriptors: what old drivers and Linux do.
func TestNoEventIdx(t *testing.T) {
	dev := newDevice(t)
	g := vsocktest.Boot(t, dev, vsocktest.Options{NoEventIdx: true})
	g.Queues[vsocktest.TX].Indirect = true
	host, guest := connect(t, dev, vsocktest.NewStack(g))
	go func() { _, _ = io.Copy(guest, guest) }()
	want := bytes.Repeat([]byte("0123456789"), 50000)
	go func() { _, _ = host.Write(want); _ = host.CloseWrite() }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo differs: %v", err)
	}
}
