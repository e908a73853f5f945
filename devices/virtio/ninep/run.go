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
// Who has the turn pops: a vCPU that has just kicked, or the leader, the one of
// up to `workers` equal goroutines that waits for kicks.
//
//  1. A vCPU kicks and takes the turn, if it is free. It pops, has the session
//     accept the request and, if it is a quick one, serves it on its own thread:
//     the guest has its reply when the kick returns, and nobody was woken up. One
//     that is not quick goes to a goroutine.
//  2. If more chains are pending, all but the last go to other goroutines.
//  3. Serve → Push → Notify → Done, in the order of completion.
//  4. Who finds the turn taken says so (again), and the holder looks once more
//     before it goes. While the holder handles a request nobody pops; if that
//     lasts longer than patience (a slow disk) the monitor takes its turn away:
//     the leader goes on, or a new one if it was the leader. After a vCPU was held
//     up for long, the kicks are left to the leader for a while.
//
// The monitor is a timer that is armed only while somebody waits for the turn.

const (
	// patience is how long a request may keep the others waiting, at most twice.
	patience = time.Millisecond

	// A vCPU that was held up for longer than held leaves the kicks to the leader for
	// shyness times as long: what a slow disk takes from the guest is a twentieth.
	held    = 10 * time.Millisecond
	shyness = 20

	// most is how many chains a vCPU pops for one kick. Others may go on sending
	// while it serves; the guest that is to run on it must not wait for that.
	most = 32
)

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

	work    chan job      // unbuffered: a send succeeds only if somebody is idle
	backlog chan job      // of the vCPUs, when nobody is idle; never full
	lead    chan struct{} // capacity 1: the leadership, when nobody has it
	done    chan struct{} // closed by stop

	turn  turn
	again atomic.Bool  // somebody wanted the turn: look again
	start time.Time    // of the run
	shy   atomic.Int64 // the leader has the kicks until then: nanoseconds since start

	armed atomic.Bool // the monitor's timer is running
	timer *time.Timer
	seen  uint64 // turn at the last tick; the monitor's

	idle atomic.Int32 // goroutines in the select of routineWorker

	mu      sync.Mutex
	stopped bool           // protected by mu
	spawned int            // protected by mu
	wg      sync.WaitGroup // goroutines, and vCPUs in kicked; Add with mu held and not stopped
}

func startRun(q *virtq.Queue, sess Session, workers int, fail func(error)) *run {
	r := &run{
		q: q, sess: sess, workers: workers, fail: fail,
		work: make(chan job), backlog: make(chan job, q.Size()),
		lead: make(chan struct{}, 1), done: make(chan struct{}), start: time.Now(),
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
	r.clear()
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

// broken tells the driver of what cannot go on. A panic in a session costs the
// guest its device, not the host its process: it is to be deferred.
func (r *run) broken(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	}
	if *err != nil && !errors.Is(*err, virtq.ErrStopped) {
		r.q.Stop()
		r.fail(fmt.Errorf("virtio-9p: %w", *err))
	}
}

func (r *run) routineWorker(j job) {
	var err error
	defer r.broken(&err)
	if j.c != nil {
		err = r.handle(j)
	}
	for err == nil {
		r.idle.Add(1)
		select {
		case j := <-r.work:
			r.idle.Add(-1)
			err = r.handle(j)
		case j := <-r.backlog:
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
}

// clear handles what the vCPUs have left, or drops it if the queue was stopped
// and not frozen.
func (r *run) clear() {
	var err error
	defer r.broken(&err)
	for err == nil {
		select {
		case j := <-r.backlog:
			if !r.q.Stopped() {
				err = r.handle(j)
			} else if j.req != nil {
				j.req.Done()
			}
		default:
			return
		}
	}
}

// leadQueue serves the queue until the leadership is taken away (nil) or the
// queue is stopped or malformed.
func (r *run) leadQueue() error {
	for {
		kept, err := r.look(turnLeader)
		if err != nil || !kept {
			return err
		}
		if err := r.q.Wait(); err != nil {
			return err
		}
	}
}

// kicked is a notification of the driver. It runs on the thread of a vCPU.
func (r *run) kicked() {
	began := time.Since(r.start)
	if int64(began) < r.shy.Load() {
		r.again.Store(true)
		r.q.Kick()
		if r.turn.taken() {
			r.arm() // by the leader itself, maybe, who hears no kick now
		}
		return
	}
	r.mu.Lock()
	stopped := r.stopped
	if !stopped {
		r.wg.Add(1)
	}
	r.mu.Unlock()
	if stopped {
		return
	}
	defer r.wg.Done()
	var err error
	defer r.broken(&err)
	_, err = r.look(turnVCPU)
	if end := time.Since(r.start); end-began > held {
		r.shy.Store(int64(end + shyness*(end-began)))
	}
	if len(r.backlog) > 0 {
		r.q.Kick() // the leader may have found our turn
	}
}

// look serves the queue, unless somebody does already, who looks again then. It
// returns false if the turn was taken away.
func (r *run) look(who uint64) (kept bool, err error) {
	for room := most; ; {
		r.again.Store(true)
		if !r.turn.take() {
			r.arm()
			return true, nil
		}
		r.again.Store(false)
		if kept, err = r.drain(who, &room); err != nil || !kept {
			return kept, err
		}
		r.turn.give()
		if room < 0 {
			r.q.Kick() // the leader goes on
			return true, nil
		}
		if !r.again.Load() {
			return true, nil
		}
	}
}

// drain pops and handles until the queue is empty and the driver will kick,
// until a vCPU has no more room, or until the turn is lost.
func (r *run) drain(who uint64, room *int) (kept bool, err error) {
	r.q.DisableKicks()
	listening := false
	for {
		if who == turnLeader {
			if kept, err = r.left(); !kept || err != nil {
				return kept, err
			}
		} else if *room--; *room < 0 {
			return true, nil
		}
		c, err := r.q.Pop()
		if err != nil {
			return true, err
		}
		if c == nil {
			if listening || !r.q.EnableKicks() {
				return true, nil
			}
			continue
		}
		more, err := r.q.Pending()
		if err != nil {
			return true, err
		}
		j := r.accept(c)
		if !more {
			// The driver shall kick while we handle: other vCPUs must not wait.
			more = r.q.EnableKicks()
		}
		listening = !more
		leave := who == turnVCPU && j.req != nil && !j.req.Quick()
		if (more || leave) && r.dispatch(j) {
			continue
		}
		if leave {
			r.backlog <- j // has room for a whole queue
			continue
		}
		if kept, err = r.hold(j, who, listening && len(r.backlog) == 0); !kept || err != nil {
			return kept, err
		}
	}
}

// left handles what the vCPUs have left to the goroutines, of which the leader is
// one.
func (r *run) left() (kept bool, err error) {
	for {
		select {
		case j := <-r.backlog:
			if kept, err = r.hold(j, turnLeader, false); !kept || err != nil {
				return kept, err
			}
		default:
			return true, nil
		}
	}
}

// hold handles j and says whether the caller still has the turn. It is not alone
// if something waits for the turn, or may come without a kick of the driver.
func (r *run) hold(j job, who uint64, alone bool) (kept bool, err error) {
	busy := r.turn.handle(who)
	if !alone {
		r.again.Store(true)
		r.arm()
	}
	err = r.handle(j)
	return r.turn.back(busy), err
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
