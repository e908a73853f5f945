package ninep

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

// TestShyKickBehindSlowLeader: a kick that is left to the leader is not lost
// while the leader itself is held up.
func TestShyKickBehindSlowLeader(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	r := startQuick(t, 8, func(req, reply [][]byte) int {
		if req[0][0] == 's' {
			<-release
		}
		return echo(req, reply)
	}, func(req [][]byte) bool { return req[0][0] != 's' })
	time.Sleep(20 * time.Millisecond) // the leader waits
	r.dev.run.Load().shy.Store(shyness)
	q := r.drv.Queue(0)
	q.Add(q.Out([]byte("slow")), q.In(16))
	q.Kick()
	r.awaitServe()
	q.Add(q.Out([]byte("quick")), q.In(16))
	q.Kick()
	wantQuick(t, q, "the request behind a slow one has been waiting for 1 s, with seven workers idle")
}

// wantQuick fails with why unless the reply of 5 bytes to "quick" comes within 1 s.
func wantQuick(t *testing.T, q *virtqtest.Queue, why string) {
	t.Helper()
	for range 1000 {
		if u, ok := q.TryUsed(); ok {
			if u.Written != 5 {
				t.Fatalf("used %+v", u)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error(why)
}

// TestOneVCPUServesNotForever: whoever kicks does not serve what others send for
// as long as they send.
func TestOneVCPUServesNotForever(t *testing.T) {
	const all = 2000
	var r *rig
	me := goroutine()
	var mine, served atomic.Int32
	r = startQuick(t, 1, func(req, reply [][]byte) int {
		if goroutine() == me {
			mine.Add(1)
		}
		if served.Add(1) < all { // another vCPU takes a reply and sends, while this one serves
			q := r.drv.Queue(0)
			_, _ = q.TryUsed()
			q.Add(q.Out([]byte("more")), q.In(16))
			done := make(chan struct{})
			go func() { defer close(done); q.Kick() }()
			<-done
		}
		return echo(req, reply)
	}, always)
	time.Sleep(20 * time.Millisecond) // the leader waits
	q := r.drv.Queue(0)
	q.Add(q.Out([]byte("first")), q.In(16))
	q.Kick()
	if n := mine.Load(); n > most {
		t.Errorf("one kick served %d requests on its vCPU", n)
	}
	for served.Load() < all {
		time.Sleep(time.Millisecond)
	}
}

// TestMonitorEnds: no timer is left of a queue that has ended.
func TestMonitorEnds(t *testing.T) {
	r := startQuick(t, 8, echo, always)
	time.Sleep(20 * time.Millisecond)
	run := r.dev.run.Load()
	q := r.drv.Queue(0)
	q.SetAvailIdx(500)
	q.ForceKick() // breaks it with the turn taken
	r.drv.WaitNeedsReset()
	q.ForceKick()
	time.Sleep(20 * time.Millisecond)
	if run.armed.Load() {
		t.Error("the monitor of a broken queue ticks")
	}
	r.drv.Reset()
	run.again.Store(true)
	run.armed.Store(true)
	run.monitor() // had begun when Reset stopped the timer
	time.Sleep(20 * time.Millisecond)
	if run.armed.Load() {
		t.Error("the monitor of a queue that is gone ticks")
	}
}

// TestPendingBehindStuckVCPU: what is pending behind a request that keeps its
// vCPU is the leader's, though no kick comes for it.
func TestPendingBehindStuckVCPU(t *testing.T) {
	release := make(chan struct{})
	r := startQuick(t, 3, func(req, reply [][]byte) int {
		if req[0][0] == 's' {
			<-release
		}
		return echo(req, reply)
	}, func(req [][]byte) bool { return string(req[0]) != "slow" })
	time.Sleep(20 * time.Millisecond)
	q := r.drv.Queue(0)
	q.Async = true
	for n := range 2 { // the workers but the leader
		q.Add(q.Out([]byte("slow")), q.In(16))
		q.Kick()
		for int(r.sessions[0].running.Load()) <= n {
			time.Sleep(time.Millisecond)
		}
	}
	time.Sleep(5 * time.Millisecond)
	q.Add(q.Out([]byte("stuck")), q.In(16))
	q.Add(q.Out([]byte("quick")), q.In(16))
	q.Kick()
	defer func() { close(release); time.Sleep(50 * time.Millisecond) }()
	wantQuick(t, q, "a request behind a stuck one has been waiting for 1 s, with the leader idle")
}

// TestPendingBehindStuckLeader: what is pending behind a request that keeps the
// leader goes to a worker that was busy when the leader popped.
func TestPendingBehindStuckLeader(t *testing.T) {
	for name, features := range map[string]uint64{"EVENT_IDX": virtqtest.FeatureEventIdx, "flags": 0} {
		t.Run(name, func(t *testing.T) {
			first, second := make(chan struct{}), make(chan struct{})
			defer close(second)
			r := startQuick(t, 2, func(req, reply [][]byte) int {
				switch string(req[0]) {
				case "first":
					<-first
				case "second":
					<-second
				}
				return echo(req, reply)
			}, nil)
			r.drv.Reset()
			r.drv.StartWith(FeatureMountTag | virtqtest.FeatureVersion1 | features)
			time.Sleep(20 * time.Millisecond) // the leader waits
			q := r.drv.Queue(0)
			q.Add(q.Out([]byte("first")), q.In(16)) // a worker's
			q.Kick()
			time.Sleep(20 * time.Millisecond)
			r.dev.run.Load().shy.Store(shyness)
			q.Add(q.Out([]byte("second")), q.In(16)) // the leader's
			q.Add(q.Out([]byte("third")), q.In(16))
			q.Kick()
			time.Sleep(20 * time.Millisecond)
			close(first)
			for got, i := 0, 0; got < 2; i++ {
				if _, ok := q.TryUsed(); ok {
					got++
				}
				if i == 1000 {
					t.Fatalf("%d of 2 after 1 s, with a worker idle", got)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestOnlyVCPUHeldUp: nobody can kick while a guest's only vCPU is held up, and it
// is left alone afterwards all the same.
func TestOnlyVCPUHeldUp(t *testing.T) {
	me := goroutine()
	var mine atomic.Int32
	r := startQuick(t, 8, func(req, reply [][]byte) int {
		if goroutine() == me {
			mine.Add(1)
		}
		time.Sleep(2 * held)
		return echo(req, reply)
	}, always)
	time.Sleep(20 * time.Millisecond) // the leader waits
	q := r.drv.Queue(0)
	for range 10 {
		_ = q.Request([]byte("cold"), 16)
	}
	if n := mine.Load(); n < 1 || n > 2 { // a slow host may let the time pass
		t.Errorf("%d of 10 slow requests on the vCPU", n)
	}
}

// TestBacklogBehindStuckVCPU: what a vCPU has left to the leader does not wait
// for the vCPU.
func TestBacklogBehindStuckVCPU(t *testing.T) {
	release := make(chan struct{})
	r := startQuick(t, 1, func(req, reply [][]byte) int {
		if string(req[0]) == "stuck" {
			<-release
		}
		return echo(req, reply)
	}, func(req [][]byte) bool { return string(req[0]) == "stuck" })
	time.Sleep(20 * time.Millisecond) // the leader waits
	q := r.drv.Queue(0)
	q.Async = true
	q.Add(q.Out([]byte("left")), q.In(16))
	q.Add(q.Out([]byte("stuck")), q.In(16))
	q.Kick()
	for i := 0; ; i++ {
		if u, ok := q.TryUsed(); ok {
			if u.Written != 4 {
				t.Errorf("used %+v", u)
			}
			break
		}
		if i == 1000 {
			t.Error("what was left to the leader has been waiting for 1 s, with the leader idle")
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	q.WaitUsed()
}
