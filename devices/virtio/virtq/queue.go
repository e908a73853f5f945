package virtq

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/internal/guestmem"
)

// Config says where a queue is and what was negotiated for it.
type Config struct {
	Mem               *guestmem.Memory
	Size              uint16      // a power of two up to MaxSize
	Desc, Avail, Used uint64      // guest-physical addresses of the three parts
	EventIdx          bool        // VIRTIO_F_EVENT_IDX was negotiated
	Indirect          bool        // VIRTIO_F_INDIRECT_DESC was negotiated
	Kick              *eventfd.FD // the driver's notifications; stays the caller's
	Interrupt         func()      // used-buffer notification; must not block
	State             State       // where a saved queue stood; zero for a new one
}

// Queue is one virtqueue between activation and reset.
type Queue struct {
	mem       *guestmem.Memory
	ring      ring
	eventIdx  bool
	indirect  bool
	kick      *eventfd.FD
	interrupt func()

	// Owned by the goroutine that pops.
	next      uint16 // index of the next available entry to take
	availIdx  uint16 // the driver's index as last loaded
	popFailed error

	stopped atomic.Bool // set with mu held, so that Push sees it in order
	frozen  atomic.Bool // no more chains, but those that are out may come back

	mu        sync.Mutex
	usedIdx   uint16   // next used entry to fill; protected by mu
	usedFlags uint16   // protected by mu
	signalled uint16   // usedIdx at the last NeedsInterrupt; protected by mu
	inFlight  []bool   // heads popped and not pushed; protected by mu
	chains    []*Chain // free chains; protected by mu
	out       int      // chains not free; protected by mu
}

// New checks the ring addresses and makes a queue that starts where cfg.State
// says.
func New(cfg Config) (*Queue, error) {
	if cfg.Mem == nil || cfg.Kick == nil || cfg.Interrupt == nil {
		return nil, fmt.Errorf("%w: incomplete", ErrRing)
	}
	r, err := newRing(cfg.Mem, cfg.Size, cfg.Desc, cfg.Avail, cfg.Used)
	if err != nil {
		return nil, err
	}
	return &Queue{
		mem: cfg.Mem, ring: r,
		eventIdx: cfg.EventIdx, indirect: cfg.Indirect,
		kick: cfg.Kick, interrupt: cfg.Interrupt,
		inFlight: make([]bool, cfg.Size),
		next:     cfg.State.Next, availIdx: cfg.State.Next,
		usedIdx: cfg.State.Used, signalled: cfg.State.Signalled, usedFlags: cfg.State.Flags,
	}, nil
}

// Size returns the number of descriptors.
func (q *Queue) Size() uint16 { return q.ring.size }

// Stopped says whether Stop was called. A device that works on a chain for long
// looks now and then.
func (q *Queue) Stopped() bool { return q.stopped.Load() }

// Pop takes the next chain, nil when there is none. An error other than
// ErrStopped is the driver's fault and final: the device must fail.
func (q *Queue) Pop() (*Chain, error) {
	if q.ended() {
		return nil, ErrStopped
	}
	if q.popFailed != nil {
		return nil, q.popFailed
	}
	more, err := q.Pending()
	if err != nil || !more {
		return nil, err
	}
	head := q.ring.availHead(q.next)
	c, err := q.take(head)
	if err == nil {
		if err = q.walk(c, head); err != nil {
			q.putBack(c)
		}
	}
	if err != nil {
		q.popFailed = err
		return nil, err
	}
	q.next++
	return c, nil
}

// Pending says whether Pop would find a chain.
func (q *Queue) Pending() (bool, error) {
	if q.popFailed != nil {
		return false, q.popFailed
	}
	if q.next != q.availIdx {
		return true, nil
	}
	q.availIdx = q.ring.availIdx()
	if n := q.availIdx - q.next; n > q.ring.size {
		q.popFailed = fmt.Errorf("%w: by %d in a queue of %d", ErrAvailIdx, n, q.ring.size)
		return false, q.popFailed
	}
	return q.next != q.availIdx, nil
}

// take marks head as in flight and finds a chain for it. The marks bound the
// chains to the size of the queue, whatever the driver does.
func (q *Queue) take(head uint16) (*Chain, error) {
	if head >= q.ring.size {
		return nil, fmt.Errorf("%w: head %d of %d", ErrIndex, head, q.ring.size)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inFlight[head] {
		return nil, fmt.Errorf("%w: %d", ErrInFlight, head)
	}
	q.inFlight[head] = true
	q.out++
	var c *Chain
	if n := len(q.chains); n > 0 {
		c, q.chains = q.chains[n-1], q.chains[:n-1]
	} else {
		c = new(Chain)
	}
	c.reset(head)
	return c, nil
}

// putBack frees a chain. Its mark stays if the walk failed: the queue is dead.
func (q *Queue) putBack(c *Chain) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free(c)
}

func (q *Queue) free(c *Chain) {
	q.out--
	q.chains = append(q.chains, c)
}

// Push returns a chain to the driver with the number of bytes written to its
// writable part, and takes c back. It does not notify: call Notify after one or
// more pushes, or leave it to Serve. After Stop it does nothing and returns
// ErrStopped.
func (q *Queue) Push(c *Chain, written uint32) error {
	if uint64(written) > c.wlen {
		return fmt.Errorf("%w: %d of %d", ErrWritten, written, c.wlen)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped.Load() {
		return ErrStopped
	}
	q.inFlight[c.head] = false // before the driver can offer it again
	q.ring.storeUsedElem(q.usedIdx, c.head, written)
	q.usedIdx++
	q.ring.storeUsedHeader(q.usedFlags, q.usedIdx)
	q.free(c)
	return nil
}

// InFlight returns the number of chains popped and not pushed.
func (q *Queue) InFlight() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.out
}

// NeedsInterrupt says whether the driver wants to hear of the pushes since the
// last call (virtio 1.2 §2.7.7.2), and counts them as told.
func (q *Queue) NeedsInterrupt() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped.Load() || q.usedIdx == q.signalled {
		return false
	}
	// Push's store of the index is a full barrier, so the driver's wish is read
	// after the driver could see the index.
	old := q.signalled
	q.signalled = q.usedIdx
	if q.eventIdx {
		// virtio 1.2 §2.7.7.2: the event lies in [old, usedIdx).
		return q.usedIdx-q.ring.usedEvent()-1 < q.usedIdx-old
	}
	return q.ring.availFlags()&AvailFNoInterrupt == 0
}

// Notify interrupts the driver if it needs it.
func (q *Queue) Notify() {
	if q.NeedsInterrupt() {
		q.interrupt()
	}
}

// DisableKicks asks the driver not to notify us, which saves it exits while we
// look at the ring anyway. It is a hint.
func (q *Queue) DisableKicks() {
	if !q.eventIdx { // with EVENT_IDX the passed avail_event says it
		q.setUsedFlags(UsedFNoNotify)
	}
}

// EnableKicks asks the driver to notify us of the next chain. If it returns
// true there is a chain already, and no notification may come for it.
func (q *Queue) EnableKicks() bool {
	if q.eventIdx {
		if q.stopped.Load() {
			return false
		}
		q.ring.storeAvailEvent(q.next)
	} else {
		q.setUsedFlags(0)
	}
	// Both stores are full barriers: either we see the driver's index here, or it
	// sees our wish and kicks.
	more, err := q.Pending()
	return more || err != nil // the error is for Pop to tell
}

func (q *Queue) setUsedFlags(flags uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped.Load() || q.usedFlags == flags {
		return
	}
	q.usedFlags = flags
	q.ring.storeUsedHeader(flags, q.usedIdx)
}

// Wait blocks until the driver notifies or Stop; then it returns ErrStopped.
// There are spurious returns.
func (q *Queue) Wait() error {
	if q.ended() {
		return ErrStopped
	}
	if err := q.kick.Wait(); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return ErrStopped
		}
		return fmt.Errorf("virtqueue kick: %w", err)
	}
	if q.ended() {
		return ErrStopped
	}
	return nil
}

// Stop makes every later Push, Notify and Pop a no-op and wakes Wait. The owner
// then waits for the goroutine that serves the queue. It may be called twice.
func (q *Queue) Stop() {
	q.mu.Lock()
	q.stopped.Store(true)
	q.mu.Unlock()
	q.Kick()
}

// Kick wakes Wait, as a notification by the driver does.
func (q *Queue) Kick() {
	_ = q.kick.Signal() // fails only when closed, and then Wait has returned
}
