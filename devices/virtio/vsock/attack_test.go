package vsock_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/devices/virtio/vsock/vsocktest"
)

const (
	guestPort = 5000
	quiet     = 30 * time.Millisecond // how long nothing must come
)

// packet is one from the guest's port to ours.
func packet(op uint16) vsocktest.Header {
	return vsocktest.Header{SrcPort: guestPort, DstPort: port, Op: op, BufAlloc: 64 << 10}
}

// attacker is a guest that sends single packets, and has one open connection.
func attacker(t *testing.T) (*vsock.Device, *vsocktest.Guest, *vsock.Conn) {
	t.Helper()
	dev := newDevice(t)
	g := vsocktest.NewGuest(t, dev)
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	g.Send(packet(vsocktest.OpRequest), nil)
	expect(t, g, vsocktest.OpResponse)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dev, g, c.(*vsock.Conn)
}

func expect(t *testing.T, g *vsocktest.Guest, op uint16) (vsocktest.Header, []byte) {
	t.Helper()
	h, p := g.Recv()
	if h.Op != op || h.Type != 1 && op != vsocktest.OpReset {
		t.Fatalf("got op %d of type %d, want op %d", h.Op, h.Type, op)
	}
	return h, p
}

func nothing(t *testing.T, g *vsocktest.Guest) {
	t.Helper()
	if h, _, ok := g.TryRecv(quiet); ok {
		t.Fatalf("got %+v, want nothing", h)
	}
}

// alive fails the test unless the connection still carries bytes both ways.
func alive(t *testing.T, g *vsocktest.Guest, c *vsock.Conn) {
	t.Helper()
	g.Send(packet(vsocktest.OpData), []byte("ping"))
	buf := make([]byte, 4)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("read %q, %v", buf, err)
	}
	if _, err := c.Write([]byte("pong")); err != nil {
		t.Fatal(err)
	}
	if _, p := expect(t, g, vsocktest.OpData); string(p) != "pong" {
		t.Fatalf("guest got %q", p)
	}
}

// TestBadPackets: packets of no connection get RST or nothing, and do not hurt
// the one there is.
func TestBadPackets(t *testing.T) {
	tests := []struct {
		name string
		h    vsocktest.Header
		rst  bool
	}{
		{"wrong source CID", vsocktest.Header{SrcCID: 4, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpReset}, false},
		{"source CID of the host", vsocktest.Header{SrcCID: 2, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpReset}, false},
		{"source CID with high bits", vsocktest.Header{SrcCID: 1<<32 | 3, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpReset}, false},
		{"wrong destination CID", vsocktest.Header{DstCID: 3, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpReset}, false},
		{"destination CID with high bits", vsocktest.Header{DstCID: 1<<32 | 2, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpReset}, false},
		{"seqpacket", vsocktest.Header{Type: 2, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpRequest}, true},
		{"unknown type", vsocktest.Header{Type: 0xffff, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpData}, true},
		{"unknown type RST", vsocktest.Header{Type: 7, SrcPort: guestPort, DstPort: port, Op: vsocktest.OpReset}, false},
		{"REQUEST to nobody", vsocktest.Header{SrcPort: 1, DstPort: 1, Op: vsocktest.OpRequest}, true},
		{"REQUEST that has read", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpRequest, FwdCount: 1}, true},
		{"RESPONSE to nobody", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpResponse}, true},
		{"RW to nobody", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpData}, true},
		{"RW to nobody with a long length", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpData, Len: 1<<32 - 1}, true},
		{"SHUTDOWN to nobody", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpShutdown, Flags: 3}, true},
		{"CREDIT_REQUEST to nobody", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpCreditRequest}, true},
		{"unknown op to nobody", vsocktest.Header{SrcPort: 1, DstPort: port, Op: 99}, true},
		{"RST to nobody", vsocktest.Header{SrcPort: 1, DstPort: port, Op: vsocktest.OpReset}, false},
	}
	dev, g, c := attacker(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dropped := dev.Stats().Dropped
			g.Send(tt.h, nil)
			if !tt.rst {
				nothing(t, g)
				if n := dev.Stats().Dropped - dropped; n != 1 {
					t.Errorf("%d packets dropped, want 1", n)
				}
			} else {
				h, _ := expect(t, g, vsocktest.OpReset)
				if h.SrcPort != tt.h.DstPort || h.DstPort != tt.h.SrcPort || h.Type != max(tt.h.Type, 1) {
					t.Errorf("RST %+v does not answer %+v", h, tt.h)
				}
			}
			alive(t, g, c)
		})
	}
}

// TestBrokenConnection: what breaks the protocol resets the connection.
func TestBrokenConnection(t *testing.T) {
	long := packet(vsocktest.OpData)
	long.Len = 100
	ahead := packet(vsocktest.OpCreditUpdate)
	ahead.FwdCount = 1
	for _, tt := range []struct {
		name    string
		h       vsocktest.Header
		payload []byte
		err     error
	}{
		{"length beyond the payload", long, make([]byte, 99), syscall.EPROTO}, // CVE-2019-18960
		{"REQUEST again", packet(vsocktest.OpRequest), nil, syscall.EPROTO},
		{"RESPONSE", packet(vsocktest.OpResponse), nil, syscall.EPROTO},
		{"unknown op", packet(8), nil, syscall.EPROTO},
		{"fwd_cnt ahead", ahead, nil, syscall.EPROTO},
		{"RST", packet(vsocktest.OpReset), nil, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev, g, c := attacker(t)
			g.Send(tt.h, tt.payload)
			if tt.h.Op != vsocktest.OpReset {
				expect(t, g, vsocktest.OpReset)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, tt.err) {
				t.Errorf("Read: %v, want %v", err, tt.err)
			}
			if _, err := c.Write(make([]byte, 1)); !errors.Is(err, tt.err) {
				t.Errorf("Write: %v, want %v", err, tt.err)
			}
			_ = c.Close()
			nothing(t, g)
			if wire, guest, _, _ := dev.Count(); wire != 0 || guest != 0 {
				t.Errorf("%d on the wire, %d counted", wire, guest)
			}
		})
	}
}

// TestMalformedChains: what is no packet at all fails the device.
func TestMalformedChains(t *testing.T) {
	full := packet(vsocktest.OpCreditRequest).Bytes()
	for _, tt := range []struct {
		name  string
		queue int
		bufs  func(q *virtqtest.Queue) []virtqtest.Buf
	}{
		{"short header", vsocktest.TX, func(q *virtqtest.Queue) []virtqtest.Buf { return []virtqtest.Buf{q.Out(full[:43])} }},
		{"writable", vsocktest.TX, func(q *virtqtest.Queue) []virtqtest.Buf { return []virtqtest.Buf{q.Out(full), q.In(44)} }},
		{"only writable", vsocktest.TX, func(q *virtqtest.Queue) []virtqtest.Buf { return []virtqtest.Buf{q.In(4096)} }},
		{"outside RAM", vsocktest.TX, func(*virtqtest.Queue) []virtqtest.Buf {
			return []virtqtest.Buf{{Addr: virtqtest.HoleAddr, Len: 44}}
		}},
		{"wraps", vsocktest.TX, func(*virtqtest.Queue) []virtqtest.Buf {
			return []virtqtest.Buf{{Addr: 1<<64 - 8, Len: 44}}
		}},
		{"rx short", vsocktest.RX, func(q *virtqtest.Queue) []virtqtest.Buf { return []virtqtest.Buf{q.In(43)} }},
		{"rx readable", vsocktest.RX, func(q *virtqtest.Queue) []virtqtest.Buf { return []virtqtest.Buf{q.Out(full), q.In(4096)} }},
		{"rx outside RAM", vsocktest.RX, func(*virtqtest.Queue) []virtqtest.Buf {
			return []virtqtest.Buf{{Addr: virtqtest.HoleAddr, Len: 4096, Writable: true}}
		}},
		{"event short", vsocktest.Event, func(q *virtqtest.Queue) []virtqtest.Buf { return []virtqtest.Buf{q.In(3)} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev := newDevice(t)
			g := vsocktest.Boot(t, dev, vsocktest.Options{RXBuffers: -1})
			q := g.Queues[tt.queue]
			if tt.queue == vsocktest.Event {
				if err := dev.TransportReset(); err != nil { // waits for a buffer
					t.Fatal(err)
				}
			}
			q.Add(tt.bufs(q)...)
			q.ForceKick()
			if tt.queue == vsocktest.RX { // wants something to send
				g.Send(packet(vsocktest.OpRequest), nil)
			}
			select {
			case err := <-g.Failed:
				t.Log(err)
			case <-time.After(virtqtest.Timeout):
				t.Fatal("the device did not fail")
			}
			dev.Reset() // returns: nothing hangs
		})
	}
}

// TestScatteredHeader: a header in single bytes, and buffers that a header just
// fits in, are legal.
func TestScatteredHeader(t *testing.T) {
	dev := newDevice(t)
	g := vsocktest.Boot(t, dev, vsocktest.Options{RXBuffers: -1})
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	rx := g.Queues[vsocktest.RX]
	for range 3 {
		rx.Add(rx.In(1), rx.In(42), rx.In(1), rx.In(2))
	}
	h := packet(vsocktest.OpRequest)
	h.SrcCID, h.DstCID, h.Type = g.CID, 2, 1
	var single [][]byte
	for _, b := range h.Bytes() {
		single = append(single, []byte{b})
	}
	g.SendRaw(single...)
	expect(t, g, vsocktest.OpResponse)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	_, p1 := expect(t, g, vsocktest.OpData)
	_, p2 := expect(t, g, vsocktest.OpData)
	if string(p1)+string(p2) != "abc" {
		t.Errorf("got %q and %q", p1, p2)
	}
}

// heap is the memory in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // sync.Pool keeps its victims for one more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestResetStorm: a guest that makes us owe it RSTs and gives no buffers for
// them costs nothing, and gets a bounded number later.
func TestResetStorm(t *testing.T) {
	dev := newDevice(t)
	g := vsocktest.Boot(t, dev, vsocktest.Options{RXBuffers: -1})
	before := heap()
	for i := range uint32(20000) {
		g.Send(vsocktest.Header{SrcPort: i, DstPort: i, Op: vsocktest.OpData}, nil)
	}
	g.TXIdle()
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("%d bytes more after the storm", grown)
	}
	g.OfferRX(0)
	n := 0
	for {
		if _, _, ok := g.TryRecv(quiet); !ok {
			break
		}
		n++
	}
	if n == 0 || n > 256 {
		t.Errorf("%d RSTs, want up to 256", n)
	}
	g.Send(vsocktest.Header{SrcPort: 1, DstPort: 1, Op: vsocktest.OpRequest}, nil)
	expect(t, g, vsocktest.OpReset) // works again
}

// TestConnectStorm: 64k connections to a listener that does not accept, and to
// one that does and keeps them.
func TestConnectStorm(t *testing.T) {
	for _, accept := range []bool{false, true} {
		dev := newDevice(t)
		g := vsocktest.NewGuest(t, dev)
		l, err := dev.Listen(port)
		if err != nil {
			t.Fatal(err)
		}
		want := 128
		if accept {
			want = 1024
			go func() {
				for {
					if _, err := l.Accept(); err != nil {
						return
					}
				}
			}()
		}
		before := heap()
		opened := 0
		for i := range uint32(1 << 16) {
			g.Send(vsocktest.Header{SrcPort: i, DstPort: port, Op: vsocktest.OpRequest, BufAlloc: 1 << 20}, nil)
			if h, _ := g.Recv(); h.Op == vsocktest.OpResponse {
				opened++
			}
		}
		// With an accept loop the backlog may have been full now and then.
		if opened > want || opened < 128 || !accept && opened != want {
			t.Errorf("accept %t: %d connections, want %d", accept, opened, want)
		}
		if grown := heap() - before; grown > 8<<20 {
			t.Errorf("accept %t: %d bytes more for %d connections", accept, grown, opened)
		}
		g.Stop()
		if wire, _, _, _ := dev.Count(); wire != 0 {
			t.Errorf("accept %t: %d connections survive the guest", accept, wire)
		}
	}
}

// TestReaderAsleep: a host program that does not read costs its window and no
// more, also when the guest does not care about credit.
func TestReaderAsleep(t *testing.T) {
	_, g, c := attacker(t)
	chunk := make([]byte, 32<<10)
	for sent := 0; sent+len(chunk) <= c.Window(); sent += len(chunk) {
		g.Send(packet(vsocktest.OpData), chunk)
	}
	g.TXIdle()
	nothing(t, g) // no credit for what was not read
	if n := c.Buffered(); n > c.Window() || n < c.Window()-len(chunk) {
		t.Errorf("%d bytes in a window of %d", n, c.Window())
	}
	g.Send(packet(vsocktest.OpData), chunk)
	g.Send(packet(vsocktest.OpData), chunk)
	expect(t, g, vsocktest.OpReset)
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("reader got %v, want ENOBUFS", err)
	}
}

// TestSingleBytes: a guest that fills the window with packets of one byte costs
// no more than the window.
func TestSingleBytes(t *testing.T) {
	_, g, c := attacker(t)
	before := heap()
	for range 20000 {
		g.Send(packet(vsocktest.OpData), []byte{1})
	}
	g.TXIdle()
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("%d bytes more for %d unread", grown, c.Buffered())
	}
	n, err := io.Copy(io.Discard, io.LimitReader(c, 20000))
	if n != 20000 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestNoCredit: without credit Write waits, asks once, and goes on when there is
// some.
func TestNoCredit(t *testing.T) {
	_, g, c := attacker(t)
	none := packet(vsocktest.OpCreditUpdate)
	none.BufAlloc = 0
	g.Send(none, nil)
	g.TXIdle()
	if err := c.SetWriteDeadline(time.Now().Add(quiet)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write([]byte("abc")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Write: %d, %v", n, err)
	}
	expect(t, g, vsocktest.OpCreditRequest)
	for range 100 {
		g.Send(none, nil)
	}
	nothing(t, g)

	_ = c.SetWriteDeadline(time.Time{})
	done := make(chan error, 1)
	go func() { _, err := c.Write([]byte("abc")); done <- err }()
	some := none
	some.BufAlloc = 2
	g.Send(some, nil)
	if _, p := expect(t, g, vsocktest.OpData); string(p) != "ab" {
		t.Fatalf("got %q for a credit of 2", p)
	}
	expect(t, g, vsocktest.OpCreditRequest)
	some.FwdCount = 2
	g.Send(some, nil)
	if _, p := expect(t, g, vsocktest.OpData); string(p) != "c" {
		t.Fatalf("got %q for the rest", p)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestDataBeforeResponse: the guest sends on a connection that it has not
// accepted.
func TestDataBeforeResponse(t *testing.T) {
	dev := newDevice(t)
	g := vsocktest.NewGuest(t, dev)
	done := make(chan error, 1)
	go func() { _, err := dev.Dial(context.Background(), port); done <- err }()
	h, _ := expect(t, g, vsocktest.OpRequest)
	g.Send(vsocktest.Header{SrcPort: port, DstPort: h.SrcPort, Op: vsocktest.OpData}, []byte("early"))
	expect(t, g, vsocktest.OpReset)
	var op *net.OpError
	if err := <-done; !errors.Is(err, syscall.EPROTO) || !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("Dial: %v, want EPROTO", err)
	}
	if wire, _, host, _ := dev.Count(); wire != 0 || host != 0 {
		t.Errorf("%d on the wire, %d counted", wire, host)
	}
}

// TestFairness: bulk streams get the same share of the RX queue, and a small
// message waits for one packet of each.
func TestFairness(t *testing.T) {
	const streams, buffers = 3, 2
	dev := newDevice(t)
	g := vsocktest.Boot(t, dev, vsocktest.Options{RXBuffers: -1})
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	g.OfferRX(buffers)
	var conns []net.Conn
	for i := range uint32(streams + 1) {
		g.Send(vsocktest.Header{SrcPort: i, DstPort: port, Op: vsocktest.OpRequest, BufAlloc: 1 << 20}, nil)
		expect(t, g, vsocktest.OpResponse)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	line := func(n int) {
		t.Helper()
		for end := time.Now().Add(virtqtest.Timeout); dev.Line() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections wait for a turn, want %d", dev.Line(), n)
			}
		}
	}
	for _, c := range conns[:streams] {
		go func() { _, _ = c.Write(make([]byte, 512<<10)) }()
	}
	line(streams)
	for range buffers { // filled before all had lined up
		expect(t, g, vsocktest.OpData)
	}
	var share [streams + 1]int
	for range 10 * streams {
		h, _ := expect(t, g, vsocktest.OpData)
		share[h.DstPort]++
	}
	for i, n := range share[:streams] {
		if n < 10-buffers || n > 10+buffers {
			t.Errorf("stream %d got %d of %d packets", i, n, 10*streams)
		}
	}
	go func() { _, _ = conns[streams].Write([]byte("key")) }()
	line(streams + 1)
	for i := 0; ; i++ {
		h, p := expect(t, g, vsocktest.OpData)
		if h.DstPort == streams {
			if string(p) != "key" {
				t.Errorf("got %q", p)
			}
			break
		}
		if i >= streams+buffers {
			t.Fatalf("the small message is not there after %d packets of others", i)
		}
	}
	g.Stop()
}
