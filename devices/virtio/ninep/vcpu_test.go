package ninep

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

func always([][]byte) bool { return true }

// goroutine is the number of the calling goroutine.
func goroutine() string {
	var buf [64]byte
	return strings.Fields(string(buf[:runtime.Stack(buf[:], false)]))[1]
}

// TestQuickOnVCPU: a quick request has its reply when the kick returns, and no
// other goroutine has seen it.
func TestQuickOnVCPU(t *testing.T) {
	me := goroutine()
	r := startQuick(t, 8, func(req, reply [][]byte) int {
		if g := goroutine(); g != me {
			t.Errorf("served by goroutine %s, kicked by %s", g, me)
		}
		return echo(req, reply)
	}, always)
	time.Sleep(20 * time.Millisecond) // the leader has looked once
	q := r.drv.Queue(0)
	for i := range 300 {
		want := fmt.Sprint("request ", i)
		q.Add(q.Out([]byte(want)), q.In(32))
		q.Kick()
		u, ok := q.TryUsed()
		if !ok {
			t.Fatalf("request %d is under way after its kick", i)
		}
		if got := q.Data(u); string(got) != want {
			t.Fatalf("got %q", got)
		}
	}
}

// TestSlowLeavesVCPU: what is not quick keeps no vCPU, not even when all workers
// are stuck.
func TestSlowLeavesVCPU(t *testing.T) {
	for _, workers := range []int{2, 8} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			release := make(chan struct{})
			r := startQuick(t, workers, func(req, reply [][]byte) int {
				if req[0][0] == 's' {
					<-release
				}
				return echo(req, reply)
			}, func(req [][]byte) bool { return req[0][0] != 's' })
			q := r.drv.Queue(0)
			for range 5 {
				q.Add(q.Out([]byte("slow")), q.In(16))
				q.Kick() // must return
			}
			for range 5 {
				if workers < 5 {
					break
				}
				if got := q.Request([]byte("quick"), 16); string(got) != "quick" {
					t.Fatalf("got %q", got)
				}
			}
			close(release)
			for range 5 {
				if u := q.WaitUsed(); u.Written != 4 {
					t.Fatalf("used %+v", u)
				}
			}
		})
	}
}

// TestStuckVCPU: a request that looked quick and is not keeps its vCPU, but
// nobody else, and the next ones leave the vCPUs alone.
func TestStuckVCPU(t *testing.T) {
	release := make(chan struct{})
	r := startQuick(t, 3, func(req, reply [][]byte) int {
		if req[0][0] == 's' {
			<-release
		}
		return echo(req, reply)
	}, always)
	time.Sleep(20 * time.Millisecond) // the leader has looked once
	q := r.drv.Queue(0)
	q.Async = true
	q.Add(q.Out([]byte("stuck")), q.In(16))
	q.Kick()
	r.awaitServe()
	for range 20 {
		q.Add(q.Out([]byte("quick")), q.In(16))
		q.Kick()
		if u := q.WaitUsed(); u.Written != 5 {
			t.Fatalf("used %+v", u)
		}
	}
	time.Sleep(10 * held)
	close(release)
	if u := q.WaitUsed(); u.Written != 5 {
		t.Fatalf("used %+v", u)
	}
	for run := r.dev.run.Load(); run.shy.Load() == 0; {
		time.Sleep(time.Millisecond) // its vCPU has seen the end
	}
	q.Async = false
	me := goroutine()
	dev := r.sessions[0]
	mine := 0
	dev.handle = func(req, reply [][]byte) int {
		if goroutine() == me {
			mine++
		}
		return echo(req, reply)
	}
	for range 30 {
		_ = q.Request([]byte("after"), 16)
	}
	if mine != 0 {
		t.Fatalf("%d requests on the vCPU right after it was held up", mine)
	}
	for begin := time.Now(); mine == 0; time.Sleep(10 * time.Millisecond) {
		if _ = q.Request([]byte("later"), 16); time.Since(begin) > virtqtest.Timeout {
			t.Fatal("no request on the vCPU ever again")
		}
	}
}

// TestManyVCPUs kicks from many at once: no request is forgotten.
func TestManyVCPUs(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			r := startQuick(t, workers, func(req, reply [][]byte) int {
				if req[0][0]%16 == 0 {
					time.Sleep(3 * patience)
				}
				return echo(req, reply)
			}, func(req [][]byte) bool { return req[0][0]%5 != 0 })
			q := r.drv.Queue(0)
			q.Async = true
			sent, got := 0, 0
			for got < 2000 {
				for sent < 2000 && sent-got < 1+sent%8 {
					q.Add(q.Out([]byte{byte(sent)}), q.In(16))
					q.Kick()
					sent++
				}
				if u := q.WaitUsed(); u.Written != 1 {
					t.Fatalf("used %+v", u)
				}
				got++
			}
		})
	}
}

// TestResetStuckVCPU: the device does not say that it has stopped while a vCPU
// may write for it.
func TestResetStuckVCPU(t *testing.T) {
	release := make(chan struct{})
	r := startQuick(t, 2, func(req, reply [][]byte) int {
		<-release
		return echo(req, reply)
	}, always)
	q := r.drv.Queue(0)
	q.Async = true
	q.Add(q.Out([]byte("stuck")), q.In(16))
	q.Kick()
	r.awaitServe()
	if err := r.tr.Reset(); !errors.Is(err, mmio.ErrBusy) {
		t.Fatalf("Reset = %v", err)
	}
	close(release)
	for r.drv.Status() != 0 {
		time.Sleep(time.Millisecond)
	}
	if q.UsedIdx() != 0 {
		t.Fatal("the stuck request was pushed after reset")
	}
	r.drv.Start(FeatureMountTag)
	if got := r.drv.Queue(0).Request([]byte("hello"), 16); string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
}

// TestBadOnVCPU: what breaks a session or a ring costs the device, not the vCPU.
func TestBadOnVCPU(t *testing.T) {
	for name, handle := range map[string]func(req, reply [][]byte) int{
		"writes too much": func(req, reply [][]byte) int { return 1000 },
		"panics":          func(req, reply [][]byte) int { panic("boom") },
		"malformed ring":  echo,
	} {
		t.Run(name, func(t *testing.T) {
			r := startQuick(t, 0, handle, always)
			time.Sleep(20 * time.Millisecond) // the leader waits for a kick
			q := r.drv.Queue(0)
			if name == "malformed ring" {
				q.SetAvailIdx(500)
			} else {
				q.Add(q.Out([]byte("request")), q.In(16))
			}
			q.ForceKick()
			r.drv.WaitNeedsReset()
			r.drv.Reset()
			if n := r.sessions[0].closed.Load(); n != 1 {
				t.Fatalf("session closed %d times", n)
			}
			q.ForceKick() // of a device that is idle
		})
	}
}

// TestFreezeWithBacklog finishes what the vCPUs have left to goroutines.
func TestFreezeWithBacklog(t *testing.T) {
	g := virtqtest.NewGuest(t)
	var sess *fake
	dev, err := New(Config{Tag: "x", Workers: 1, NewSession: func() Session {
		sess = &fake{handle: func(req, reply [][]byte) int {
			time.Sleep(5 * time.Millisecond)
			return echo(req, reply)
		}}
		return sess
	}})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := mmio.New(mmio.Config{Device: dev, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	drv := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	drv.Start(FeatureMountTag)
	q := drv.Queue(0)
	for i := range 10 {
		q.Add(q.Out(bytes.Repeat([]byte{1}, i+1)), q.In(16))
		q.Kick()
	}
	if _, err := dev.Freeze(); !errors.Is(err, errInUse) {
		t.Fatalf("Freeze = %v", err)
	}
	if used, popped := q.UsedIdx(), dev.run.Load().q.InFlight(); popped != 0 {
		t.Fatalf("%d chains out after Freeze, %d used", popped, used)
	}
}
