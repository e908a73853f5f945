package vsock

import (
	"bytes"
	"io"
	"syscall"
	"testing"
	"time"
)

// fuzzMux is a device without queues: what it sends is taken by drain.
func fuzzMux(t *testing.T) (*Device, *listener) {
	d, err := New(Config{MaxConns: 4, Buffer: 4*2*windowMin + 64<<10})
	if err != nil {
		t.Fatal(err)
	}
	d.mux.closeTimeout = time.Hour
	l, err := d.mux.listen(1)
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

// drain sends up to n packets in the order of the line, and checks each.
func drain(t *testing.T, r *rxq, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ; r.first != nil && n > 0; n-- {
		c := r.first
		c.mu.Lock()
		credit, s := c.credit(), c.state
		c.mu.Unlock()
		page := make([]byte, 300)
		size := r.packet([][]byte{page[:40], page[40:]}, len(page))
		if size == 0 {
			continue
		}
		var h header
		h.unmarshal((*[headerSize]byte)(page))
		switch {
		case h.srcCID != HostCID || h.dstCID != 3 || h.typ != typeStream || int(h.len) != size-headerSize:
			t.Fatalf("packet of %d bytes: %+v", size, h)
		case h.op == opData && (h.len > credit || s != open):
			t.Fatalf("%d bytes sent with a credit of %d in state %d", h.len, credit, s)
		case h.bufAlloc != c.window:
			t.Fatalf("offers %d of a window of %d", h.bufAlloc, c.window)
		}
	}
}

// check fails unless the books are right.
func check(t *testing.T, d *Device) {
	m := &d.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, c := range m.conns {
		c.mu.Lock()
		if c.state == dead || c.unread.size > int(c.window) || c.key() != k || !c.onWire || c.fwdCnt-c.fwdSent > c.window {
			t.Fatalf("connection %v in state %d with %d of %d bytes, %d not told",
				k, c.state, c.unread.size, c.window, c.fwdCnt-c.fwdSent)
		}
		if uint32(len(c.src)) > 0 && c.credit() > peerAllocMax {
			t.Fatalf("credit %d", c.credit())
		}
		c.mu.Unlock()
	}
	if m.fromGuest > m.maxConns || m.fromHost > m.maxConns || m.spare < 0 {
		t.Fatalf("%d and %d connections, %d bytes spare", m.fromGuest, m.fromHost, m.spare)
	}
}

// FuzzPackets plays a list of steps. Each is a byte for what is done, and then
// what it needs: packets of the guest, and calls of the host in between.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{0, 1, 0, 9, 0, 0, 1, 20, 0, 1, 5, 9, 0, 0, 2, 3, 0, 4, 2, 50})
	f.Add([]byte{0, 1, 0, 9, 0, 0, 4, 0, 1, 5, 255, 3, 255, 2, 0, 255, 3, 0, 255, 6, 0, 0, 1, 4, 0, 0, 0, 3, 1, 200})
	f.Add([]byte{7, 0, 0, 2, 9, 0, 0, 1, 30, 0, 1, 5, 255, 0, 0, 5, 0, 1, 3, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		d, l := fuzzMux(t)
		m := &d.mux
		var held []*Conn
		next := func() int {
			if len(steps) == 0 {
				return 0
			}
			b := steps[0]
			steps = steps[1:]
			return int(b)
		}
		pick := func() *Conn {
			if len(held) == 0 {
				return testConnOf(m)
			}
			return held[next()%len(held)]
		}
		payload := make([]byte, headerSize+255*1024)
		for n := 0; len(steps) > 0 && n < 500; n++ {
			switch next() % 10 {
			case 0, 1: // a packet
				h := header{srcCID: 3, dstCID: HostCID, typ: typeStream, dstPort: 1}
				h.srcPort, h.op = uint32(next()%8), op(next()%9)
				if h.srcPort == 7 { // to the last that was dialed
					h.dstPort = m.lastPort
				}
				h.bufAlloc, h.fwdCnt, h.flags = uint32(next())<<(next()%25), uint32(next()), uint32(next()%4)
				h.len = uint32(next() << (next() % 11))
				m.deliver(&h, [][]byte{payload[:30], payload[30 : headerSize+h.len]}, uint64(h.len))
			case 2:
				held = append(held, l.drain0()...)
			case 3:
				c := pick()
				_ = c.SetReadDeadline(time.Unix(1, 0))
				c.mu.Lock()
				c.rdl.expired = false // Read what is there, but do not wait
				some := c.unread.size > 0
				c.mu.Unlock()
				if some {
					_, _ = c.Read(make([]byte, 1+next()<<(next()%11)))
				}
			case 4:
				c := pick()
				c.mu.Lock()
				c.src = payload[:next()<<(next()%11)]
				c.mu.Unlock()
				m.rx.schedule(c)
			case 5:
				_ = pick().CloseWrite()
			case 6:
				_ = pick().CloseRead()
			case 7: // dial as far as it goes without a guest
				m.mu.Lock()
				if m.fromHost < m.maxConns {
					held = append(held, m.add(connKey{guest: 7, host: m.freePort(7)}, true))
				}
				m.mu.Unlock()
			case 8:
				if c := pick(); next()%2 == 0 {
					c.expire()
				} else {
					_ = c.Close()
				}
			case 9:
				drain(t, &m.rx, next())
			}
			check(t, d)
		}
		held = append(held, l.drain0()...)
		m.dropAll(syscall.ECONNRESET)
		for _, c := range held {
			_ = c.Close()
		}
		check(t, d)
		if len(m.conns) != 0 || m.fromGuest != 0 || m.fromHost != 0 || m.spare != 64<<10 {
			t.Fatalf("left: %d on the wire, %d and %d connections, %d bytes spare", len(m.conns), m.fromGuest, m.fromHost, m.spare)
		}
	})
}

// testConnOf is a connection that nobody counts.
func testConnOf(m *mux) *Conn {
	c := newConn(m, connKey{guest: 100, host: 100}, windowMin, false)
	c.state = dead
	return c
}

func (l *listener) drain0() []*Conn {
	l.mux.mu.Lock()
	defer l.mux.mu.Unlock()
	return l.drain()
}

// FuzzHeader: any bytes in a chain are a header or are refused, and a header is
// the same after a round trip.
func FuzzHeader(f *testing.F) {
	f.Add(make([]byte, headerSize), uint8(3))
	f.Add([]byte("short"), uint8(0))
	h := header{srcCID: 3, dstCID: 2, srcPort: 9, dstPort: 1, typ: typeStream, op: opRequest}
	var b [headerSize]byte
	h.marshal(&b)
	f.Add(b[:], uint8(20))
	h.op, h.len = opData, 1<<32-1
	h.marshal(&b)
	f.Add(append(b[:], "data"...), uint8(44))
	f.Fuzz(func(t *testing.T, raw []byte, cut uint8) {
		k := min(int(cut), len(raw))
		pages := [][]byte{raw[:k], raw[k:]}
		var got [headerSize]byte
		n := gather(got[:], pages, 0)
		if n != min(headerSize, len(raw)) || !bytes.Equal(got[:n], raw[:n]) {
			t.Fatalf("gathered %d bytes: %x of %x", n, got[:n], raw)
		}
		if n < headerSize {
			return
		}
		var h header
		h.unmarshal(&got)
		out := make([]byte, headerSize)
		putHeader([][]byte{out[:min(k, headerSize)], out[min(k, headerSize):]}, &h)
		if !bytes.Equal(out, got[:]) {
			t.Fatalf("%x becomes %x", got, out)
		}
		d, l := fuzzMux(t)
		req := header{srcCID: 3, dstCID: HostCID, typ: typeStream, op: opRequest, srcPort: h.srcPort, dstPort: 1}
		d.mux.deliver(&req, nil, 0)
		d.mux.deliver(&h, pages, uint64(len(raw)-headerSize))
		check(t, d)
		for _, c := range l.drain0() {
			_ = c.CloseRead()
			if _, err := io.ReadAll(c); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
		}
	})
}
