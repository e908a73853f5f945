package ninep

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// Flow of a request.
//
// Among up to `workers` equal goroutines one is the leader: it alone waits for
// kicks and pops.
//
//  1. kick → the leader pops a chain and has the session accept it.
//  2. If more chains are pending it hands this one to another goroutine and pops
//     on. The last one it handles itself: a guest that has one request in flight
//     (the common case) is served by one goroutine, without a hop.
//  3. Serve → Push → Notify → Done, in the order of completion.
//  4. While the leader handles, nobody pops. If that lasts longer than patience
//     (a slow disk), the monitor makes another goroutine the leader; the old one
//     finds out when its request is done and becomes a worker.
//
// The monitor is a timer that is armed only while requests flow.

// patience is how long a request may keep the others waiting, at most twice.
const patience = time.Millisecond

// job is a chain on its way. req is nil for one that can be no request.
type job struct {
	c   *virtq.Chain
	req Request
}

// run is the device between Activate and Reset.
type run struct {
	q       *virtq.Queue
	sess    Session
	workers int
	fail    func(error)

	work chan job      // unbuffered: a send succeeds only if somebody is idle
	lead chan struct{} // capacity 1: the leadership, when nobody has it
	done chan struct{} // closed by stop

	// inline is 2*seq+1 while the leader handles request number seq, and even
	// otherwise. Who changes it from odd to even by compare-and-swap has the
	// leadership from then on.
	inline atomic.Uint64
	seq    uint64 // the leader's

	armed atomic.Bool // the monitor's timer is running
	timer *time.Timer
	seen  uint64 // inline at the last tick; the monitor's

	idle atomic.Int32 // goroutines in the select of routineWorker

	mu      sync.Mutex
	stopped bool           // protected by mu
	spawned int            // protected by mu
	wg      sync.WaitGroup // all goroutines; Add with mu held and not stopped
}

func startRun(q *virtq.Queue, sess Session, workers int, fail func(error)) *run {
	r := &run{
		q: q, sess: sess, workers: workers, fail: fail,
		work: make(chan job), lead: make(chan struct{}, 1), done: make(chan struct{}),
	}
	r.timer = time.AfterFunc(time.Hour, r.monitor)
	r.timer.Stop()
	r.lead <- struct{}{}
	r.spawn(job{})
	return r
}

// stop returns when no goroutine of the run is left, which no Handle can hold up
// except one that the host's kernel holds up.
func (r *run) stop() {
	r.q.Stop()
	r.end()
}

// end waits for the goroutines of a queue that brings nothing more. A second
// call does nothing.
func (r *run) end() {
	r.mu.Lock()
	again := r.stopped
	r.stopped = true
	r.mu.Unlock()
	if again {
		return
	}
	close(r.done)
	r.timer.Stop()
	r.wg.Wait()
	r.sess.Close()
}

// spawn adds a goroutine that begins with j (none if zero), if there may be one more.
func (r *run) spawn(j job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.spawned == r.workers {
		return false
	}
	r.spawned++
	r.wg.Go(func() { r.routineWorker(j) })
	return true
}

func (r *run) routineWorker(j job) {
	defer func() {
		if v := recover(); v != nil {
			r.q.Stop()
			r.fail(fmt.Errorf("virtio-9p: panic: %v\n%s", v, debug.Stack()))
		}
	}()
	var err error
	if j.c != nil {
		err = r.handle(j)
	}
	for err == nil {
		r.idle.Add(1)
		select {
		case j := <-r.work:
			r.idle.Add(-1)
			err = r.handle(j)
		case <-r.lead:
			r.idle.Add(-1)
			err = r.leadQueue()
		case <-r.done:
			r.idle.Add(-1)
			return
		}
	}
	if !errors.Is(err, virtq.ErrStopped) {
		r.q.Stop()
		r.fail(fmt.Errorf("virtio-9p: %w", err))
	}
}

// leadQueue serves the queue until the leadership is taken away (nil) or the
// queue is stopped or malformed.
func (r *run) leadQueue() error {
	for {
		r.q.DisableKicks()
		for {
			c, err := r.q.Pop()
			if err != nil {
				return err
			}
			if c == nil {
				break
			}
			more, err := r.q.Pending()
			if err != nil {
				return err
			}
			j := r.accept(c)
			if more && r.dispatch(j) {
				continue
			}
			leader, err := r.handleInline(j)
			if !leader || err != nil {
				return err
			}
		}
		if r.q.EnableKicks() {
			continue
		}
		if err := r.q.Wait(); err != nil {
			return err
		}
	}
}

// accept makes a job of a chain. A chain without room for a reply, or without
// anything to read, is no request: it goes back as it is.
func (r *run) accept(c *virtq.Chain) job {
	if len(c.Readable()) == 0 || len(c.Writable()) == 0 {
		return job{c: c}
	}
	return job{c, r.sess.Accept(c.Readable())}
}

// dispatch hands j to another goroutine if one is idle or may be started.
func (r *run) dispatch(j job) bool {
	select {
	case r.work <- j:
		return true
	default:
		return r.spawn(j)
	}
}

// handleInline handles j as the leader and says whether it still is.
func (r *run) handleInline(j job) (leader bool, err error) {
	r.seq++
	busy := 2*r.seq + 1
	r.inline.Store(busy)
	if !r.armed.Load() { // after the store: the monitor looks in the other order
		r.arm()
	}
	err = r.handle(j)
	return r.inline.CompareAndSwap(busy, busy-1), err
}

func (r *run) handle(j job) error {
	n := 0
	if j.req != nil {
		defer j.req.Done()
		n = j.req.Serve(j.c.Writable())
	}
	if n < 0 || n > math.MaxUint32 {
		return fmt.Errorf("%w: session wrote %d", virtq.ErrWritten, n)
	}
	if err := r.q.Push(j.c, uint32(n)); err != nil {
		return err
	}
	r.q.Notify()
	return nil
}

func (r *run) arm() {
	if r.armed.CompareAndSwap(false, true) {
		r.timer.Reset(patience)
	}
}

// monitor is the timer's tick.
func (r *run) monitor() {
	now := r.inline.Load()
	if now != r.seen {
		r.seen = now
		r.timer.Reset(patience)
		return
	}
	if now%2 == 1 { // the same request as a tick ago
		if !r.promote(now) {
			r.timer.Reset(16 * patience) // all are stuck: look less often
			return
		}
		r.timer.Reset(patience)
		return
	}
	r.armed.Store(false)
	if r.inline.Load() != now {
		r.arm()
	}
}

// promote takes the leadership from a goroutine stuck in request busy and offers
// it to another. It returns false if there is none: the guest waits then.
func (r *run) promote(busy uint64) bool {
	if r.idle.Load() == 0 && !r.spawn(job{}) {
		return false
	}
	if r.inline.CompareAndSwap(busy, busy-1) {
		r.lead <- struct{}{} // never blocks: there is only one leadership
	}
	return true
}
