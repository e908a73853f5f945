package vsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

const (
	// resetsMax bounds the RSTs that wait for a buffer of the guest and belong to no
	// connection. A guest that makes us owe it more gets none for the rest.
	resetsMax = 256

	// turnsMax is how many packets one caller moves for others before it hands over.
	turnsMax = 64
)

var errChain = errors.New("vsock chain malformed")

// rxq shares the one RX queue among the connections. Who wants to send stands in
// line, gets one packet out, and lines up again if it has more: a bulk stream
// delays a keystroke by one packet per connection, not by its length.
//
// There is no pump. Whoever holds mu moves packets: a Write puts its own bytes
// into the guest's pages without a switch of goroutines. RoutineRX does it when
// the line waited for buffers and the guest has brought new ones.
type rxq struct {
	fail func(error) // of the device; mu is not held

	mu     sync.Mutex
	q      *virtq.Queue // nil: no guest
	chain  *virtq.Chain // popped, and not used yet
	broken bool         // by the guest: q is not used any more
	helper bool         // RoutineTurns runs
	wg     sync.WaitGroup

	first, last *Conn    // the line
	resets      []header // the headers that are answered, oldest first
	resetTurn   bool     // the next packet is one of those
	up          chan struct{}
}

// start gives the queue of a guest that is up.
func (r *rxq) start(q *virtq.Queue) {
	r.mu.Lock()
	r.q, r.broken = q, false
	q.DisableKicks()
	close(r.up)
	r.wg.Add(1)
	go r.RoutineRX(q)
	r.runAndUnlock() // for a Dial that came in while the last guest went down
}

// stop returns when no goroutine touches the guest's memory on our behalf.
func (r *rxq) stop() {
	r.mu.Lock()
	if r.q != nil {
		r.q.Stop()
		r.up = make(chan struct{})
	}
	r.q, r.chain, r.resets = nil, nil, nil
	for r.first != nil {
		r.dequeue()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// waitUp returns when the guest's driver is up.
func (r *rxq) waitUp(ctx context.Context, done <-chan struct{}) error {
	r.mu.Lock()
	up := r.up
	r.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-done:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// schedule puts c in line and moves what can be moved.
func (r *rxq) schedule(c *Conn) {
	r.mu.Lock()
	r.enqueue(c)
	r.runAndUnlock()
}

// reset owes the guest an RST for h; false if it is owed too many.
func (r *rxq) reset(h *header) bool {
	r.mu.Lock()
	if r.q == nil || len(r.resets) >= resetsMax {
		r.mu.Unlock()
		return false
	}
	r.resets = append(r.resets, header{
		srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort,
		typ: h.typ, op: opReset,
	})
	r.runAndUnlock()
	return true
}

// RoutineRX goes on when the guest brings buffers that somebody waits for.
func (r *rxq) RoutineRX(q *virtq.Queue) {
	defer r.wg.Done()
	for q.Wait() == nil {
		r.mu.Lock()
		r.runAndUnlock()
	}
}

// RoutineTurns goes on for a caller that has done its share.
func (r *rxq) RoutineTurns() {
	defer r.wg.Done()
	for more := true; more; {
		r.mu.Lock()
		var err error
		more, err = r.run()
		r.helper = more
		r.mu.Unlock()
		if err != nil {
			r.fail(err)
		}
	}
}

// runAndUnlock moves packets and lets go of mu.
func (r *rxq) runAndUnlock() {
	more, err := r.run()
	if more && !r.helper {
		r.helper = true
		r.wg.Add(1) // before stop can wait: q is not nil and mu is held
		go r.RoutineTurns()
	}
	r.mu.Unlock()
	if err != nil {
		r.fail(err)
	}
}

// run moves up to turnsMax packets, and reports whether it could go on at once.
// It returns an error once, and then does nothing until stop. mu is held.
func (r *rxq) run() (more bool, err error) {
	if r.q == nil || r.broken {
		return false, nil
	}
	defer r.q.Notify()
	for n := 0; r.first != nil || len(r.resets) > 0; {
		if n == turnsMax {
			return true, nil
		}
		pages, size, err := r.buffer()
		if err != nil {
			r.broken = true
			return false, ignoreStopped(err)
		}
		if pages == nil {
			return false, nil // RoutineRX hears of the next
		}
		written := r.packet(pages, size)
		if written == 0 {
			continue // that connection had nothing to say; the buffer is for the next
		}
		c := r.chain
		r.chain = nil
		if err := r.q.Push(c, uint32(written)); err != nil {
			r.broken = true
			return false, ignoreStopped(err)
		}
		n++
	}
	return false, nil
}

// buffer returns the guest pages for the next packet, nil if there are none.
func (r *rxq) buffer() ([][]byte, int, error) {
	for r.chain == nil {
		c, err := r.q.Pop()
		if err != nil {
			return nil, 0, err
		}
		if c != nil {
			r.q.DisableKicks()
			r.chain = c
		} else if !r.q.EnableKicks() {
			return nil, 0, nil
		}
	}
	// virtio 1.2 section 5.10.6.1: only device-writable buffers; and a header must
	// fit.
	if r.chain.ReadableLen() != 0 || r.chain.WritableLen() < headerSize {
		return nil, 0, fmt.Errorf("rx: %w: %d bytes readable, %d writable",
			errChain, r.chain.ReadableLen(), r.chain.WritableLen())
	}
	return r.chain.Writable(), int(r.chain.WritableLen()), nil
}

// packet writes the packet whose turn it is and returns its size, 0 for none.
func (r *rxq) packet(pages [][]byte, size int) int {
	// RSTs and connections take turns, so that neither holds up the other.
	if len(r.resets) > 0 && (r.resetTurn || r.first == nil) {
		r.resetTurn = false
		putHeader(pages, &r.resets[0])
		r.resets = r.resets[1:]
		return headerSize
	}
	r.resetTurn = true
	c := r.dequeue()
	n, out := c.fill(pages, size)
	if out&isDead != 0 {
		c.mux.offWire(c)
	}
	if out&hasWork != 0 {
		r.enqueue(c)
	}
	return n
}

func (r *rxq) enqueue(c *Conn) {
	if c.inTurn {
		return
	}
	c.inTurn = true
	if r.first == nil {
		r.first = c
	} else {
		r.last.next = c
	}
	r.last = c
}

func (r *rxq) dequeue() *Conn {
	c := r.first
	r.first, c.next, c.inTurn = c.next, nil, false
	if r.first == nil {
		r.last = nil
	}
	return c
}

func ignoreStopped(err error) error {
	if errors.Is(err, virtq.ErrStopped) {
		return nil
	}
	return err
}
