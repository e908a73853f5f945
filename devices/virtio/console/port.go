package console

import (
	"fmt"
	"io"
	"sync"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// Port is the host end of a named port.
//
// Read blocks until the guest has the port open and has written. Each close of
// the port by the guest, and each reset of the device, ends what was sent before
// with one io.EOF; the next Read waits for the guest to open it again. So what a
// guest wrote before it shut down is read in full, up to maxKept bytes.
//
// Write blocks until the guest has the port open and room. If the guest closes
// it in the middle of a Write, that Write fails with EPIPE. Written bytes are in
// buffers of the guest; whether a program there reads them is another matter.
//
// Close tells the guest, whose reads then end and whose writes wait. Read and
// Write return os.ErrClosed then, also those under way.
//
// One Read and one Write may run at once, and Close at any time.
type Port interface {
	io.ReadWriteCloser
}

// port is what device and host end share. The states of the two sides are
// independent:
//
//	host:   closed ──Port()──▶ open ──Close──▶ closed
//	guest:  closed ──PORT_OPEN 1──▶ open ──PORT_OPEN 0 or reset──▶ closed
type port struct {
	id   uint32
	name string

	mu        sync.Mutex   // protects all below; queues are popped with mu held
	readable  sync.Cond    // pending or host changed
	writable  sync.Cond    // rx, guestOpen or host changed
	host      *handle      // nil: no host end
	guestOpen bool         //
	closes    uint64       // how often the guest side has closed
	rx, tx    *virtq.Queue // nil when the device is idle
	fail      func(error)  // of the activation
	// pending is what the guest sent and the host has not read, in order. Two EOFs
	// never follow each other and at most one item is kept data, so a guest that
	// opens, closes and resets for ever does not make it grow.
	pending []item
	iov     int  // buffers read of pending[0]
	kept    bool // pending has an item of kept data
}

// item is a chain, or bytes kept of the chains of an activation that is over, or
// with neither the mark of an EOF.
type item struct {
	chain *virtq.Chain
	kept  []byte
}

func (i item) eof() bool { return i.chain == nil && i.kept == nil }

// maxKept is how much of what was sent is kept over a reset: as much as Linux
// can have in flight, a full queue of its writes of 32 KiB.
const maxKept = sizePort * 32 << 10

func newPort(id uint32, name string) *port {
	p := &port{id: id, name: name}
	p.readable.L, p.writable.L = &p.mu, &p.mu
	return p
}

// start gives the port its queues.
func (p *port) start(rx, tx *virtq.Queue, fail func(error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rx, p.tx, p.fail = rx, tx, fail
	rx.DisableKicks() // until a Write lacks buffers
}

// stop forgets the queues and all chains: no host goroutine can reach guest
// memory any more when it returns.
func (p *port) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tx == nil {
		return
	}
	_, _ = p.take() // the last words, whose kick may not have been served yet
	p.rx.Stop()
	p.tx.Stop()
	p.keep()
	p.rx, p.tx, p.fail = nil, nil, nil
	if n := len(p.pending); p.guestOpen || n > 0 && !p.pending[n-1].eof() {
		p.guestClosed()
	}
}

// keep replaces the pending chains by a copy of what they hold. Mu is held.
func (p *port) keep() {
	var data []byte
	rest := p.pending[:0]
	for _, it := range p.pending {
		if it.chain == nil {
			rest = append(rest, it)
			continue
		}
		for _, b := range it.chain.Readable()[p.iov:] {
			if p.kept {
				break // the host has not even read what the last reset left
			}
			data = append(data, b[:min(len(b), maxKept-len(data))]...)
		}
		p.iov = 0
	}
	clear(p.pending[len(rest):])
	p.pending, p.iov = rest, 0
	if len(data) > 0 {
		p.pending = append(p.pending, item{kept: data})
		p.kept = true
	}
}

// guestOpened is the guest's PORT_OPEN.
func (p *port) guestOpened(open bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case open:
		p.guestOpen = true
		p.writable.Broadcast()
		return nil
	case !p.guestOpen:
		return nil
	}
	// What was sent before the close comes before the EOF, although its kick may
	// not have been served yet.
	_, err := p.take()
	p.guestClosed()
	return err
}

// guestClosed marks the end of what the guest sent. Mu is held.
func (p *port) guestClosed() {
	p.guestOpen = false
	p.closes++
	if n := len(p.pending); p.host != nil && (n == 0 || !p.pending[n-1].eof()) {
		p.pending = append(p.pending, item{})
	}
	p.readable.Broadcast()
	p.writable.Broadcast()
}

// take moves chains of the guest to pending, or back to the guest if no host
// end is there. It takes at most a queue's size, so that the lock is not held
// for long whatever the guest does, and says whether there may be more. Mu is
// held.
func (p *port) take() (more bool, err error) {
	if p.tx == nil {
		return false, nil
	}
	got, pushed := false, false
	n := uint16(0)
	for ; n < p.tx.Size(); n++ {
		c, err := p.tx.Pop()
		if err != nil {
			return false, err
		}
		if c == nil {
			break
		}
		if p.host != nil && c.ReadableLen() > 0 {
			p.pending = append(p.pending, item{chain: c})
			got = true
			continue
		}
		if err := p.tx.Push(c, 0); err != nil {
			return false, err
		}
		pushed = true
	}
	if pushed {
		p.tx.Notify()
	}
	if got {
		p.readable.Broadcast()
	}
	return n == p.tx.Size(), nil
}

// routineTx takes chains when the guest kicks.
func (p *port) routineTx(q *virtq.Queue) error {
	for {
		p.mu.Lock()
		q.DisableKicks()
		more, err := p.take()
		if err == nil && !more {
			more = q.EnableKicks()
		}
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if err := q.Wait(); err != nil {
			return err
		}
	}
}

// routineRx passes kicks on to a Write that waits for buffers.
func (p *port) routineRx(q *virtq.Queue) error {
	for {
		if err := q.Wait(); err != nil {
			return err
		}
		p.mu.Lock()
		p.writable.Broadcast()
		p.mu.Unlock()
	}
}

func (p *port) openHost(d *Device) (*handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host != nil {
		return nil, fmt.Errorf("virtio-console: port %q is open already", p.name)
	}
	p.host = &handle{p: p, d: d}
	return p.host, nil
}

// closeHost closes the host end h (nil: any) and says whether it was open.
func (p *port) closeHost(h *handle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host == nil || h != nil && p.host != h {
		return false
	}
	p.host = nil
	p.discard()
	p.readable.Broadcast()
	p.writable.Broadcast()
	return true
}

// discard gives all pending chains back. Mu is held.
func (p *port) discard() {
	for _, it := range p.pending {
		if it.chain != nil {
			_ = p.tx.Push(it.chain, 0) // fails only when the queue is stopped
		}
	}
	clear(p.pending)
	p.pending, p.iov, p.kept = p.pending[:0], 0, false
	if p.tx != nil {
		p.tx.Notify()
	}
}
