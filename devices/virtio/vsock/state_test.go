package vsock

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// testConn is a connection in the given state, with the packets that led there
// sent. Nothing but the connection is there: no queue, no guest.
func testConn(t *testing.T, s state) *Conn {
	t.Helper()
	d, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := &d.mux
	m.closeTimeout = time.Hour
	m.mu.Lock()
	c := m.add(connKey{guest: 5000, host: 1024}, s == connecting)
	m.mu.Unlock()
	c.peerAlloc = 1 << 20
	sent(c) // REQUEST or RESPONSE
	if s == dying {
		c.die(syscall.EPROTO)
	}
	return c
}

// sent returns the op of each packet that c wants to send now.
func sent(c *Conn) []op {
	var all []op
	for range 100 {
		page := make([]byte, 4096)
		n, _ := c.fill([][]byte{page}, len(page))
		if n == 0 {
			return all
		}
		var h header
		h.unmarshal((*[headerSize]byte)(page))
		all = append(all, h.op)
	}
	return append(all, opInvalid) // it never ends
}

func equal(a, b []op) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestStates(t *testing.T) {
	rst := []op{opReset}
	tests := []struct {
		name  string
		state state
		setup func(*Conn)
		h     header
		want  state
		sent  []op
		err   error
	}{
		{"connecting RESPONSE", connecting, nil, header{op: opResponse}, open, nil, nil},
		{"connecting RST", connecting, nil, header{op: opReset}, dead, nil, syscall.ECONNREFUSED},
		{"connecting RW", connecting, nil, header{op: opData}, dead, rst, syscall.EPROTO},
		{"connecting REQUEST", connecting, nil, header{op: opRequest}, dead, rst, syscall.EPROTO},
		{"connecting SHUTDOWN", connecting, nil, header{op: opShutdown, flags: 3}, dead, rst, syscall.EPROTO},
		{"connecting CREDIT_UPDATE", connecting, nil, header{op: opCreditUpdate}, dead, rst, syscall.EPROTO},
		{"connecting RESPONSE that has read", connecting, nil, header{op: opResponse, fwdCnt: 1}, dead, rst, syscall.EPROTO},

		{"open RST", open, nil, header{op: opReset}, dead, nil, syscall.ECONNRESET},
		{"open RW", open, nil, header{op: opData, len: 10}, open, nil, nil},
		{"open RW of nothing", open, nil, header{op: opData}, open, nil, nil},
		{"open RW of the whole window", open, nil, header{op: opData, len: windowMax}, open, nil, nil},
		{"open RW over credit", open, nil, header{op: opData, len: windowMax + 1}, dead, rst, syscall.ENOBUFS},
		{"open REQUEST", open, nil, header{op: opRequest}, dead, rst, syscall.EPROTO},
		{"open RESPONSE", open, nil, header{op: opResponse}, dead, rst, syscall.EPROTO},
		{"open op 0", open, nil, header{op: 0}, dead, rst, syscall.EPROTO},
		{"open op 8", open, nil, header{op: 8}, dead, rst, syscall.EPROTO},
		{"open op 65535", open, nil, header{op: 0xffff}, dead, rst, syscall.EPROTO},
		{"open CREDIT_REQUEST", open, nil, header{op: opCreditRequest}, open, []op{opCreditUpdate}, nil},
		{"open CREDIT_UPDATE", open, nil, header{op: opCreditUpdate}, open, nil, nil},
		{"open SHUTDOWN of nothing", open, nil, header{op: opShutdown}, open, nil, nil},
		{"open SHUTDOWN unknown flags", open, nil, header{op: opShutdown, flags: 0xfffffffc}, open, nil, nil},
		{"open SHUTDOWN send", open, nil, header{op: opShutdown, flags: shutdownSend}, open, nil, nil},
		{"open SHUTDOWN receive", open, nil, header{op: opShutdown, flags: shutdownReceive}, open, nil, nil},
		{"open SHUTDOWN both", open, nil, header{op: opShutdown, flags: shutdownBoth}, dead, rst, syscall.EPIPE},
		{
			"open SHUTDOWN second half", open, func(c *Conn) { c.recv(&header{op: opShutdown, flags: shutdownSend}, nil) },
			header{op: opShutdown, flags: shutdownReceive},
			dead, rst, syscall.EPIPE,
		},
		{
			"RW after SHUTDOWN send", open, func(c *Conn) { c.recv(&header{op: opShutdown, flags: shutdownSend}, nil) },
			header{op: opData, len: 1},
			dead, rst, syscall.EPROTO,
		},
		{"fwd_cnt of what was not sent", open, nil, header{op: opCreditUpdate, fwdCnt: 1}, dead, rst, syscall.EPROTO},
		{"fwd_cnt far ahead", open, nil, header{op: opCreditUpdate, fwdCnt: 1<<31 - 1}, dead, rst, syscall.EPROTO},
		{"fwd_cnt backwards", open, nil, header{op: opCreditUpdate, fwdCnt: 1<<32 - 1}, open, nil, nil},

		{"CloseWrite", open, func(c *Conn) { _ = c.CloseWrite() }, header{op: opCreditUpdate}, open, []op{opShutdown}, nil},
		{"CloseRead then RW in flight", open, func(c *Conn) { _ = c.CloseRead() }, header{op: opData, len: 9}, open, []op{opShutdown}, nil},
		{"Close then RST", open, func(c *Conn) { _ = c.Close(); sent(c) }, header{op: opReset}, dead, nil, syscall.ECONNRESET},
		{"Close then SHUTDOWN that crossed ours", open, func(c *Conn) { _ = c.Close() }, header{op: opShutdown, flags: shutdownBoth}, dead, rst, syscall.EPIPE},
		{"Close then RW in flight", open, func(c *Conn) { _ = c.Close() }, header{op: opData, len: 9}, open, []op{opShutdown}, nil},

		{"dying RW", dying, nil, header{op: opData, len: 1}, dead, rst, syscall.EPROTO},
		{"dying REQUEST", dying, nil, header{op: opRequest}, dead, rst, syscall.EPROTO},
		{"dying RST", dying, nil, header{op: opReset}, dead, nil, syscall.EPROTO},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testConn(t, tt.state)
			if tt.setup != nil {
				tt.setup(c)
			}
			c.recv(&tt.h, [][]byte{make([]byte, headerSize+int(min(tt.h.len, 1<<20)))})
			got := sent(c)
			if c.state != tt.want || !equal(got, tt.sent) || !errors.Is(c.err, tt.err) {
				t.Errorf("state %d, sent %v, error %v; want %d, %v, %v", c.state, got, c.err, tt.want, tt.sent, tt.err)
			}
		})
	}
}

// TestReadAfterEnd: what the guest sent before it left can be read, then EOF or
// the error comes.
func TestReadAfterEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		last header
		want error
	}{
		{"SHUTDOWN both", header{op: opShutdown, flags: shutdownBoth}, io.EOF},
		{"SHUTDOWN send", header{op: opShutdown, flags: shutdownSend}, io.EOF},
		{"RST", header{op: opReset}, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConn(t, open)
			page := append(make([]byte, headerSize), "abc"...)
			c.recv(&header{op: opData, len: 3}, [][]byte{page})
			c.recv(&tt.last, nil)
			got, err := io.ReadAll(c)
			if string(got) != "abc" || !(errors.Is(err, tt.want) || tt.want == io.EOF && err == nil) {
				t.Errorf("read %q, %v; want abc, %v", got, err, tt.want)
			}
		})
	}
}

// TestReadWaiting: bytes go into the buffer of a Read that waits, and what does
// not fit is kept for the next.
func TestReadWaiting(t *testing.T) {
	c := testConn(t, open)
	p := make([]byte, 3)
	done := make(chan int)
	go func() { n, _ := c.Read(p); done <- n }()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		waits = c.dst != nil
		c.mu.Unlock()
	}
	c.recv(&header{op: opData, len: 10}, [][]byte{append(make([]byte, headerSize), "0123456789"...)})
	if n := <-done; n != 3 || string(p) != "012" || c.unread.size != 7 || c.fwdCnt != 3 {
		t.Errorf("read %q, %d bytes kept, fwdCnt %d", p[:n], c.unread.size, c.fwdCnt)
	}
	rest := make([]byte, 10)
	if n, err := c.Read(rest); string(rest[:n]) != "3456789" || err != nil || c.fwdCnt != 10 {
		t.Errorf("read %q, %v, fwdCnt %d", rest[:n], err, c.fwdCnt)
	}
}

func TestErrorsAreOpErrors(t *testing.T) {
	c := testConn(t, open)
	_ = c.Close()
	_, err := c.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.As(err, &op) || op.Net != "vsock" || op.Op != "read" || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %#v", err)
	}
	if got, want := err.Error(), "read vsock 2:1024->3:5000: use of closed network connection"; got != want {
		t.Errorf("error text %q, want %q", got, want)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := c.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline after Close: %v", err)
	}
	if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("CloseWrite after Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestCredit: counts modulo 2^32, buffers that shrink.
func TestCredit(t *testing.T) {
	big := uint32(1<<32 - 100)
	for _, tt := range []struct {
		name           string
		tx, fwd, alloc uint32
		h              header
		want           uint32
	}{
		{"all read", 1000, 0, 4096, header{fwdCnt: 1000, bufAlloc: 4096}, 4096},
		{"half read", 1000, 0, 4096, header{fwdCnt: 500, bufAlloc: 4096}, 3596},
		{"buffer shrinks below what is on the way", 1000, 0, 4096, header{bufAlloc: 10}, 0},
		{"no buffer", 1000, 0, 4096, header{fwdCnt: 1000}, 0},
		{"counts wrap", big + 200, big, 4096, header{fwdCnt: big + 150, bufAlloc: 4096}, 4046},
		{"unbelievable buffer", 0, 0, 0, header{bufAlloc: 1<<32 - 1}, peerAllocMax},
		{"backwards keeps what is known", 1000, 500, 4096, header{fwdCnt: 400, bufAlloc: 1}, 3596},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConn(t, open)
			c.txCnt, c.peerFwd, c.peerAlloc = tt.tx, tt.fwd, tt.alloc
			if !c.takeCredit(&tt.h) {
				t.Fatal("credit refused")
			}
			if got := c.credit(); got != tt.want {
				t.Errorf("credit %d, want %d", got, tt.want)
			}
		})
	}
}

// TestWindows: however many connections there are, their windows fit in Buffer,
// and each has the least.
func TestWindows(t *testing.T) {
	const conns, buffer = 100, 4 << 20
	d, err := New(Config{MaxConns: conns, Buffer: buffer})
	if err != nil {
		t.Fatal(err)
	}
	m := &d.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	total, first := 0, 0
	var all []*Conn
	for i := range uint32(2 * conns) {
		c := m.add(connKey{guest: i}, i%2 == 0)
		if i == 0 {
			first = int(c.window)
		}
		if c.window < windowMin {
			t.Fatalf("connection %d has a window of %d", i, c.window)
		}
		total += int(c.window)
		all = append(all, c)
	}
	if total > buffer || first < windowMax*9/10 {
		t.Errorf("windows of %d bytes in a buffer of %d; the first has %d", total, buffer, first)
	}
	for _, c := range all {
		c.onWire, c.onHost = false, false
		m.release(c)
	}
	if want := buffer - conns*2*windowMin; m.spare != want || m.fromGuest != 0 || m.fromHost != 0 {
		t.Errorf("after release %d spare, want %d; %d and %d connections", m.spare, want, m.fromGuest, m.fromHost)
	}
}

func TestFIFO(t *testing.T) {
	var f fifo
	next, read := byte(0), byte(0)
	for i := range 2000 {
		n := i * 7919 % (3 * chunkSize)
		page := make([]byte, headerSize+n)
		for j := range n {
			page[headerSize+j] = next
			next++
		}
		f.write([][]byte{page[:headerSize+n/2], page[headerSize+n/2:]}, headerSize, n)
		p := make([]byte, i*104729%(3*chunkSize)+1)
		for _, b := range p[:f.read(p)] {
			if b != read {
				t.Fatalf("round %d: byte %d, want %d", i, b, read)
			}
			read++
		}
		held := 0
		for c := f.head; c != nil; c = c.next {
			held++
		}
		if held > f.size/chunkSize+2 || f.size == 0 && held != 0 {
			t.Fatalf("%d chunks for %d bytes", held, f.size)
		}
	}
	f.clear()
	if f.head != nil || f.tail != nil || f.size != 0 {
		t.Error("clear left something")
	}
}
