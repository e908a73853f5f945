package vsock

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// deadline is the read or the write deadline of a connection.
type deadline struct {
	timer   *time.Timer
	gen     int // tells a timer that fired late that it was replaced
	expired bool
}

// set replaces the deadline; mu is held by the caller and protects d. When it
// passes, ch gets a token.
func (d *deadline) set(mu *sync.Mutex, ch chan struct{}, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.gen++
	d.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		wake(ch)
		return
	}
	gen := d.gen
	d.timer = time.AfterFunc(left, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.gen == gen {
			d.expired = true
			wake(ch)
		}
	})
}

// Read reads what the guest has sent. It returns io.EOF after the guest's last
// byte, and an error that wraps syscall.ECONNRESET after a reset.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.mu.Lock()
	for {
		n, out, err := c.tryRead(p)
		if n > 0 || err != nil || len(p) == 0 {
			c.mu.Unlock()
			c.mux.settle(c, out)
			return n, opError(opRead, c.local, c.remote, err)
		}
		// From here to the token, recvData writes straight into p.
		c.dst = p
		c.mu.Unlock()
		<-c.readable
		c.mu.Lock()
		c.dst = nil
	}
}

// tryRead is Read without the wait. c.mu is held.
func (c *Conn) tryRead(p []byte) (int, outcome, error) {
	if n := c.dstN; n > 0 { // came while we waited, whatever happened then
		c.dstN = 0
		return n, 0, nil
	}
	if c.closed {
		return 0, 0, net.ErrClosed
	}
	if c.rdl.expired {
		return 0, 0, os.ErrDeadlineExceeded
	}
	if c.localShut&shutdownReceive != 0 {
		return 0, 0, io.EOF
	}
	if n := c.unread.read(p); n > 0 {
		c.fwdCnt += uint32(n)
		var out outcome
		if c.state == open {
			out = c.offerCredit()
		}
		return n, out, nil
	}
	switch {
	case c.unread.size > 0: // len(p) is 0
		return 0, 0, nil
	case c.peerShut&shutdownSend != 0:
		return 0, 0, io.EOF
	}
	return 0, 0, c.err
}

// Write returns when all of p is in the guest's memory. It waits while the
// guest gives no credit.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.mu.Lock()
	err := c.writeErr()
	if err != nil || len(p) == 0 {
		c.mu.Unlock()
		return 0, opError(opWrite, c.local, c.remote, err)
	}
	c.src = p
	c.mu.Unlock()
	c.mux.rx.schedule(c)
	c.mu.Lock()
	for len(c.src) > 0 {
		if err = c.writeErr(); err != nil {
			break
		}
		c.mu.Unlock()
		<-c.writable
		c.mu.Lock()
	}
	n := len(p) - len(c.src)
	c.src = nil
	c.mu.Unlock()
	return n, opError(opWrite, c.local, c.remote, err)
}

// writeErr says why nothing can be written now. c.mu is held.
func (c *Conn) writeErr() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.wdl.expired:
		return os.ErrDeadlineExceeded
	case c.localShut&shutdownSend != 0, c.peerShut&shutdownReceive != 0:
		return syscall.EPIPE
	}
	return c.err
}

// shut tells the guest the shutdown flags. c.mu is held.
func (c *Conn) shut(flags uint32) outcome {
	if c.localShut&flags == flags {
		return 0
	}
	c.localShut |= flags
	if flags&shutdownReceive != 0 {
		c.fwdCnt += uint32(c.unread.size)
		c.unread.clear()
	}
	wake(c.readable)
	wake(c.writable)
	if c.state != open {
		return 0
	}
	c.pend |= pendShutdown
	if c.localShut == shutdownBoth {
		c.arm()
	}
	return hasWork
}

// half is CloseRead and CloseWrite.
func (c *Conn) half(flags uint32) error {
	c.mu.Lock()
	var err error
	var out outcome
	switch {
	case c.closed:
		err = net.ErrClosed
	case c.state == dying || c.state == dead:
		if c.err != syscall.EPIPE { // the guest has left in good order
			err = c.err
		}
		c.shut(flags)
	default:
		out = c.shut(flags)
	}
	c.mu.Unlock()
	c.mux.settle(c, out)
	return opError(opClose, c.local, c.remote, err)
}

// CloseWrite tells the guest that no more bytes come: its reader gets EOF after
// the last. Reading goes on.
func (c *Conn) CloseWrite() error { return c.half(shutdownSend) }

// CloseRead tells the guest that nothing more is read: its writer gets EPIPE.
// What was not read yet is lost.
func (c *Conn) CloseRead() error { return c.half(shutdownReceive) }

// Close ends both directions. What Write has taken reaches the guest; a Read or
// Write that waits returns net.ErrClosed. Further Close calls do nothing.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	out := c.shut(shutdownBoth)
	c.rdl.set(&c.mu, c.readable, time.Time{})
	c.wdl.set(&c.mu, c.writable, time.Time{})
	wake(c.readable)
	wake(c.writable)
	c.mu.Unlock()
	c.mux.offHost(c)
	c.mux.settle(c, out)
	return nil
}

// LocalAddr returns the host's Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the guest's Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, true, true) }

// SetReadDeadline bounds the wait of Read. A deadline that has passed also ends
// a Read that waits.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, true, false) }

// SetWriteDeadline bounds the wait of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, false, true) }

func (c *Conn) setDeadline(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError(opSet, c.local, c.remote, net.ErrClosed)
	}
	if read {
		c.rdl.set(&c.mu, c.readable, t)
	}
	if write {
		c.wdl.set(&c.mu, c.writable, t)
	}
	return nil
}
