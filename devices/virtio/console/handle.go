package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// handle is one opening of the host end.
type handle struct {
	p *port
	d *Device
}

func (h *handle) opError(op string, err error) error {
	return &os.PathError{Op: op, Path: h.p.name, Err: err}
}

// Close implements Port.
func (h *handle) Close() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if !h.p.closeHost(h) {
		return h.opError("close", os.ErrClosed)
	}
	h.d.setHostOpen(int(h.p.id), false)
	return nil
}

// Read implements Port.
func (h *handle) Read(b []byte) (int, error) {
	p := h.p
	if len(b) == 0 {
		return 0, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.host != h {
			return 0, h.opError("read", os.ErrClosed)
		}
		if len(p.pending) > 0 {
			break
		}
		p.readable.Wait()
	}
	if p.pending[0].eof() {
		p.drop()
		return 0, io.EOF
	}
	return p.read(b), nil
}

// read copies pending data into b. Mu is held.
func (p *port) read(b []byte) (n int) {
	pushed := false
	for n < len(b) && len(p.pending) > 0 && !p.pending[0].eof() {
		it := &p.pending[0]
		if it.chain == nil {
			k := copy(b[n:], it.kept)
			n += k
			if it.kept = it.kept[k:]; len(it.kept) == 0 {
				p.kept = false
				p.drop()
			}
			continue
		}
		bufs := it.chain.Readable()
		for n < len(b) && p.iov < len(bufs) {
			k := copy(b[n:], bufs[p.iov])
			n += k
			if bufs[p.iov] = bufs[p.iov][k:]; len(bufs[p.iov]) == 0 {
				p.iov++
			}
		}
		if p.iov == len(bufs) {
			_ = p.tx.Push(it.chain, 0) // fails only when the queue is stopped
			p.drop()
			pushed = true
		}
	}
	if pushed {
		p.tx.Notify()
	}
	return n
}

// drop removes pending[0]. Mu is held.
func (p *port) drop() {
	n := copy(p.pending, p.pending[1:])
	p.pending[n] = item{}
	p.pending, p.iov = p.pending[:n], 0
}

// Write implements Port.
func (h *handle) Write(b []byte) (int, error) {
	p := h.p
	if len(b) == 0 {
		return 0, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.host == h && !p.guestOpen {
		p.writable.Wait()
	}
	closes := p.closes
	n := 0
	for {
		switch {
		case p.host != h:
			return n, h.opError("write", os.ErrClosed)
		case p.closes != closes:
			return n, h.opError("write", syscall.EPIPE)
		case len(b) == n:
			return n, nil
		}
		k, err := p.give(b[n:])
		n += k
		if err != nil && !errors.Is(err, virtq.ErrStopped) {
			p.fail(fmt.Errorf("virtio-console: %w", err))
		}
		if err != nil {
			return n, h.opError("write", syscall.EPIPE)
		}
		// Let go of the lock, so that a guest which feeds us buffers as fast as
		// we take them cannot keep a reset out.
		p.mu.Unlock()
		p.mu.Lock()
	}
}

// give copies b into buffers of the guest, at most a queue's size of them, or
// waits once if there are none. Mu is held, but for the wait.
func (p *port) give(b []byte) (n int, err error) {
	if p.rx == nil {
		p.writable.Wait()
		return 0, nil
	}
	pushed := false
	for i := uint16(0); i < p.rx.Size() && n < len(b); i++ {
		c, err := p.rx.Pop()
		if err != nil {
			return n, err
		}
		if c == nil {
			break
		}
		k := c.WriteAt(b[n:], 0)
		if err := p.rx.Push(c, uint32(k)); err != nil {
			return n, err
		}
		n, pushed = n+k, true
	}
	if pushed {
		p.rx.Notify()
		return n, nil
	}
	if !p.rx.EnableKicks() {
		p.writable.Wait()
	}
	if p.rx != nil {
		p.rx.DisableKicks()
	}
	return 0, nil
}
