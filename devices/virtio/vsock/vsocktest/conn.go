package vsocktest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufAlloc is the receive buffer that the guest offers, as Linux by default.
const bufAlloc = 256 << 10

// Conn is a socket of the guest.
type Conn struct {
	s   *Stack
	key key

	sendMu  sync.Mutex // keeps the counters of our packets in order
	writeMu sync.Mutex

	mu        sync.Mutex
	cond      sync.Cond
	opened    bool
	closed    bool
	err       error
	buf       bytes.Buffer
	peerShut  uint32
	shut      uint32
	fwd       uint32 // bytes read
	fwdSent   uint32
	tx        uint32 // bytes sent
	peerFwd   uint32
	peerAlloc uint32
	rdl, wdl  time.Time
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.cond.Broadcast()
}

// send sends one packet of this connection.
func (c *Conn) send(op uint16, flags uint32, p []byte) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.mu.Lock()
	h := Header{
		SrcPort: c.key.guest, DstPort: c.key.host, Op: op, Flags: flags,
		BufAlloc: bufAlloc, FwdCount: c.fwd,
	}
	c.fwdSent = c.fwd
	c.mu.Unlock()
	c.s.g.Send(h, p)
}

// recv does what a packet of the host says.
func (c *Conn) recv(h Header, p []byte) {
	c.mu.Lock()
	c.peerAlloc, c.peerFwd = h.BufAlloc, h.FwdCount
	var reply uint16
	gone := false
	switch h.Op {
	case OpResponse:
		c.opened = true
	case OpReset:
		c.err, gone = syscall.ECONNRESET, true
	case OpData:
		if c.buf.Len()+len(p) > bufAlloc {
			c.s.g.t.Errorf("vsocktest: the host overran its credit: %d bytes more on %d", len(p), c.buf.Len())
		}
		if c.peerShut&ShutSend != 0 {
			c.s.g.t.Error("vsocktest: data after SHUTDOWN")
		}
		c.buf.Write(p)
	case OpShutdown:
		c.peerShut |= h.Flags
		if c.peerShut == ShutBoth {
			reply, gone = OpReset, true
		}
	case OpCreditRequest:
		reply = OpCreditUpdate
	}
	c.cond.Broadcast()
	c.mu.Unlock()
	if reply != 0 {
		c.send(reply, 0, nil)
	}
	if gone {
		c.s.remove(c)
	}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	for {
		switch {
		case c.closed:
			c.mu.Unlock()
			return 0, net.ErrClosed
		case passed(c.rdl):
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case c.buf.Len() > 0 || len(p) == 0:
			n, _ := c.buf.Read(p)
			c.fwd += uint32(n)
			update := c.fwd-c.fwdSent >= bufAlloc/2
			c.mu.Unlock()
			if update {
				c.send(OpCreditUpdate, 0, nil)
			}
			return n, nil
		case c.peerShut&ShutSend != 0:
			c.mu.Unlock()
			return 0, io.EOF
		case c.err != nil:
			defer c.mu.Unlock()
			return 0, c.err
		}
		c.cond.Wait()
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for done := 0; ; {
		n, err := c.credit(len(p) - done)
		if err != nil || n == 0 {
			return done, err
		}
		c.send(OpData, 0, p[done:done+n])
		done += n
		if done == len(p) {
			return done, nil
		}
	}
}

// credit waits until some of n bytes may be sent.
func (c *Conn) credit(n int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		credit := int(c.peerAlloc - (c.tx - c.peerFwd))
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case passed(c.wdl):
			return 0, os.ErrDeadlineExceeded
		case c.peerShut&ShutReceive != 0 || c.shut&ShutSend != 0:
			return 0, syscall.EPIPE
		case c.err != nil:
			return 0, c.err
		case n == 0:
			return 0, nil
		case credit > 0:
			n = min(n, credit, txBufSize)
			c.tx += uint32(n)
			return n, nil
		}
		c.cond.Wait()
	}
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// CloseWrite sends SHUTDOWN for our direction.
func (c *Conn) CloseWrite() error { return c.shutdown(ShutSend) }

func (c *Conn) shutdown(flags uint32) error {
	c.mu.Lock()
	dead := c.err != nil || c.peerShut == ShutBoth
	c.shut |= flags
	c.cond.Broadcast()
	c.mu.Unlock()
	if !dead {
		c.send(OpShutdown, flags, nil)
	}
	return nil
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	return c.shutdown(ShutBoth)
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return addr("guest") }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return addr("host") }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.rdl, &c.wdl) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.rdl) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.wdl) }

func (c *Conn) setDeadline(t time.Time, which ...*time.Time) error {
	c.mu.Lock()
	for _, d := range which {
		*d = t
	}
	c.cond.Broadcast()
	c.mu.Unlock()
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.cond.Broadcast()
		})
	}
	return nil
}
