package virtq_test

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/eventfd"
)

// rig is a queue with its driver side and a count of the interrupts.
type rig struct {
	g    *virtqtest.Guest
	d    *virtqtest.Queue
	q    *virtq.Queue
	kick *eventfd.FD
	intr atomic.Int64
}

func newRig(t testing.TB, size uint16, eventIdx, indirect bool) *rig {
	t.Helper()
	r := &rig{g: virtqtest.NewGuest(t)}
	kick, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kick.Close() })
	r.kick = kick
	ring := virtqtest.NewRing(t, r.g, size)
	irq := make(chan struct{}, 1)
	r.q, err = virtq.New(virtq.Config{
		Mem: r.g.Mem, Size: size, Desc: ring.Desc, Avail: ring.Avail, Used: ring.Used,
		EventIdx: eventIdx, Indirect: indirect, Kick: kick,
		Interrupt: func() {
			r.intr.Add(1)
			select {
			case irq <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.d = virtqtest.NewQueue(r.g, ring, func() { _ = kick.Signal() }, func(d time.Duration) bool {
		select {
		case <-irq:
			return true
		case <-time.After(d):
			return false
		}
	})
	r.d.EventIdx, r.d.Indirect = eventIdx, indirect
	return r
}

func (r *rig) serve(t testing.TB, handle func(*virtq.Chain) error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- virtq.Serve(r.q, handle) }()
	t.Cleanup(func() {
		r.q.Stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// echo writes the readable bytes into the writable ones.
func (r *rig) echo(c *virtq.Chain) error {
	buf := make([]byte, c.ReadableLen())
	n := c.WriteAt(buf[:c.ReadAt(buf, 0)], 0)
	return r.q.Push(c, uint32(n))
}

var modes = []struct {
	name               string
	eventIdx, indirect bool
}{
	{"plain", false, false},
	{"event idx", true, false},
	{"indirect", false, true},
	{"event idx and indirect", true, true},
}

func TestEcho(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			r := newRig(t, 8, m.eventIdx, m.indirect)
			r.serve(t, r.echo)
			for i := range 500 {
				want := bytes.Repeat([]byte{byte(i)}, 1+i)
				r.d.Add(r.d.Out(want[:i/2]), r.d.Out(want[i/2:]), r.d.In(100), r.d.In(1000))
				r.d.Kick()
				if got := r.d.Data(r.d.WaitUsed()); !bytes.Equal(got, want) {
					t.Fatalf("round %d: got %d bytes, want %d", i, len(got), len(want))
				}
			}
			if n := r.q.InFlight(); n != 0 {
				t.Fatalf("%d chains in flight", n)
			}
		})
	}
}

// TestIndexWrap goes around the 16-bit indices.
func TestIndexWrap(t *testing.T) {
	for _, m := range modes[:2] {
		t.Run(m.name, func(t *testing.T) {
			r := newRig(t, 4, m.eventIdx, m.indirect)
			for i := range uint16(4) {
				r.d.SetDesc(int(i), virtqtest.Desc{Addr: 0x100000, Len: 8, Flags: virtqtest.FWrite})
				r.d.SetAvail(i, i)
			}
			for i := range uint32(65536 + 100) {
				r.d.SetAvailIdx(uint16(i + 1))
				c, err := r.q.Pop()
				if err != nil || c == nil {
					t.Fatalf("chain %d: Pop = %v, %v", i, c, err)
				}
				if err := r.q.Push(c, i%8); err != nil {
					t.Fatal(err)
				}
				if i%1000 > 3 && i < 65530 {
					continue
				}
				if r.d.UsedIdx() != uint16(i+1) || r.d.UsedAt(uint16(i)) != (virtqtest.UsedElem{Head: i % 4, Written: i % 8}) {
					t.Fatalf("chain %d: used index %d, element %+v", i, r.d.UsedIdx(), r.d.UsedAt(uint16(i)))
				}
				// Asked for at just this index, or for every one: both interrupt.
				r.d.SetUsedEvent(uint16(i))
				if !r.q.NeedsInterrupt() {
					t.Fatalf("chain %d: no interrupt", i)
				}
			}
		})
	}
}

// TestMemoryFlat sends the longest chains there are, again and again, well and
// badly formed.
func TestMemoryFlat(t *testing.T) {
	r := newRig(t, 8, true, true)
	tableAddr := r.g.Alloc(16 * virtq.MaxIndirect)
	for i := range virtq.MaxIndirect {
		d := virtqtest.Desc{Addr: 0x100000, Len: 8, Flags: virtqtest.FNext, Next: uint16(i + 1)}
		if i == virtq.MaxIndirect-1 {
			d.Flags = 0
		}
		r.d.PutDesc(tableAddr, i, d)
	}
	for i := range 8 {
		r.d.SetDesc(i, virtqtest.Desc{Addr: tableAddr, Len: 16 * virtq.MaxIndirect, Flags: virtqtest.FIndirect})
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for round := range 300 {
		if round == 10 {
			before = heap()
		}
		var held []*virtq.Chain
		for i := range uint16(8) {
			r.d.Offer(i)
			c, err := r.q.Pop()
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		}
		for _, c := range held {
			if err := r.q.Push(c, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.d.SetAvailIdx(r.d.AvailIdx() + 1000)
	for range 1000 {
		if _, err := r.q.Pop(); err == nil {
			t.Fatal("malformed ring popped")
		}
	}
	if after := heap(); after > before+64<<10 {
		t.Fatalf("heap went from %d to %d bytes", before, after)
	}
}

func TestOutOfOrderPush(t *testing.T) {
	r := newRig(t, 8, true, false)
	var chains []*virtq.Chain
	var heads []uint16
	for range 4 {
		heads = append(heads, r.d.Add(r.d.In(4)))
		c, err := r.q.Pop()
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, c)
	}
	for i := 3; i >= 0; i-- {
		if err := r.q.Push(chains[i], uint32(i)); err != nil {
			t.Fatal(err)
		}
		if u, _ := r.d.TryUsed(); u.Head != heads[i] || u.Written != uint32(i) {
			t.Fatalf("used %+v, want head %d", u, heads[i])
		}
	}
}

// TestConcurrentPush hands chains to several goroutines: none is lost and the
// driver hears of the last one.
func TestConcurrentPush(t *testing.T) {
	r := newRig(t, 64, true, false)
	work := make(chan *virtq.Chain)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for c := range work {
				if err := r.q.Push(c, uint32(c.Head())); err != nil {
					t.Error(err)
				}
				r.q.Notify()
			}
		})
	}
	r.serve(t, func(c *virtq.Chain) error { work <- c; return nil })
	in := r.d.In(64)
	for range 200 {
		for range 64 {
			r.d.Add(in)
		}
		r.d.Kick()
		for range 64 {
			if u := r.d.WaitUsed(); u.Written != uint32(u.Head) {
				t.Fatalf("used %+v", u)
			}
		}
	}
	close(work)
	wg.Wait()
}

func TestPushTooMuch(t *testing.T) {
	r := newRig(t, 8, false, false)
	r.d.Add(r.d.Out([]byte("abc")), r.d.In(4))
	c, err := r.q.Pop()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.q.Push(c, 5); !errors.Is(err, virtq.ErrWritten) {
		t.Fatalf("Push of 5 into 4: %v", err)
	}
	if err := r.q.Push(c, 4); err != nil {
		t.Fatal(err)
	}
}

// TestInterrupts checks when the driver is told, with and without EVENT_IDX.
func TestInterrupts(t *testing.T) {
	push := func(t *testing.T, r *rig, n int) bool {
		t.Helper()
		for range n {
			r.d.Add(r.d.In(1))
			c, err := r.q.Pop()
			if err != nil {
				t.Fatal(err)
			}
			if err := r.q.Push(c, 0); err != nil {
				t.Fatal(err)
			}
			r.d.TryUsed()
		}
		return r.q.NeedsInterrupt()
	}
	t.Run("flags", func(t *testing.T) {
		r := newRig(t, 8, false, false)
		if r.q.NeedsInterrupt() {
			t.Fatal("interrupt for nothing")
		}
		if !push(t, r, 3) || r.q.NeedsInterrupt() {
			t.Fatal("want exactly one interrupt")
		}
		r.d.SetAvailFlags(virtq.AvailFNoInterrupt)
		if push(t, r, 1) {
			t.Fatal("interrupt although the driver asked for none")
		}
	})
	t.Run("event idx", func(t *testing.T) {
		r := newRig(t, 8, true, false)
		if !push(t, r, 1) {
			t.Fatal("no interrupt at used_event 0")
		}
		r.d.SetUsedEvent(3)
		if push(t, r, 2) {
			t.Fatal("interrupt before used_event was passed")
		}
		if !push(t, r, 1) {
			t.Fatal("no interrupt when used_event was passed")
		}
		if push(t, r, 4) {
			t.Fatal("interrupt after used_event was passed")
		}
		r.d.SetUsedEvent(r.d.UsedIdx() - 1)
		if push(t, r, 8) {
			t.Fatal("interrupt for an event in the past")
		}
	})
}

func TestKickSuppression(t *testing.T) {
	r := newRig(t, 8, false, false)
	r.q.DisableKicks()
	if r.d.UsedFlags() != virtq.UsedFNoNotify {
		t.Fatal("kicks not disabled")
	}
	if r.q.EnableKicks() {
		t.Fatal("a chain in an empty ring")
	}
	if r.d.UsedFlags() != 0 {
		t.Fatal("kicks not enabled")
	}
	r.d.Add(r.d.In(1))
	if !r.q.EnableKicks() {
		t.Fatal("EnableKicks missed a chain")
	}

	r = newRig(t, 8, true, false)
	for range 3 {
		r.d.Add(r.d.In(1))
		if _, err := r.q.Pop(); err != nil {
			t.Fatal(err)
		}
	}
	if r.q.EnableKicks() || r.d.AvailEvent() != 3 {
		t.Fatalf("avail_event = %d, want 3", r.d.AvailEvent())
	}
}

func TestStop(t *testing.T) {
	r := newRig(t, 8, false, false)
	held := make(chan *virtq.Chain, 1)
	done := make(chan error, 1)
	go func() {
		done <- virtq.Serve(r.q, func(c *virtq.Chain) error { held <- c; return nil })
	}()
	r.d.Add(r.d.In(1))
	r.d.Kick()
	c := <-held
	r.q.Stop()
	if err := <-done; err != nil {
		t.Fatalf("Serve after Stop: %v", err)
	}
	if err := r.q.Push(c, 1); !errors.Is(err, virtq.ErrStopped) {
		t.Fatalf("Push after Stop: %v", err)
	}
	r.q.Notify()
	if r.d.UsedIdx() != 0 || r.intr.Load() != 0 {
		t.Fatal("the ring or the driver heard of a chain after Stop")
	}
	if _, err := r.q.Pop(); !errors.Is(err, virtq.ErrStopped) {
		t.Fatalf("Pop after Stop: %v", err)
	}
}

func TestServeErrors(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name   string
		handle func(*virtq.Chain) error
		want   error
	}{
		{"handler error", func(*virtq.Chain) error { return boom }, boom},
		{"handler panic", func(*virtq.Chain) error { panic("boom") }, virtq.ErrPanic},
		{"stopped", func(*virtq.Chain) error { return virtq.ErrStopped }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 8, false, false)
			r.d.Add(r.d.In(1))
			if err := virtq.Serve(r.q, tt.handle); !errors.Is(err, tt.want) {
				t.Fatalf("Serve = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestServeOneInterruptPerDrain(t *testing.T) {
	r := newRig(t, 64, false, false)
	for range 32 {
		r.d.Add(r.d.In(1))
	}
	r.serve(t, func(c *virtq.Chain) error { return r.q.Push(c, 0) })
	for range 32 {
		r.d.WaitUsed()
	}
	time.Sleep(10 * time.Millisecond)
	if n := r.intr.Load(); n != 1 {
		t.Fatalf("%d interrupts for one drain, want 1", n)
	}
}

func TestNoAllocs(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			r := newRig(t, 8, m.eventIdx, m.indirect)
			head := r.d.Add(r.d.Out([]byte("xxxxxxxx")), r.d.In(8), r.d.In(8))
			cycle := func() {
				c, err := r.q.Pop()
				if err != nil || c == nil {
					t.Fatalf("Pop = %v, %v", c, err)
				}
				if err := r.q.Push(c, 16); err != nil {
					t.Fatal(err)
				}
				r.q.Notify()
				r.d.Offer(head)
			}
			cycle()
			if n := testing.AllocsPerRun(100, cycle); n != 0 {
				t.Fatalf("%v allocations per chain", n)
			}
		})
	}
}

func BenchmarkPopPush(b *testing.B) {
	for _, m := range modes {
		b.Run(m.name, func(b *testing.B) {
			r := newRig(b, 128, m.eventIdx, m.indirect)
			head := r.d.Add(r.d.Out(make([]byte, 24)), r.d.In(64))
			b.ReportAllocs()
			for b.Loop() {
				c, err := r.q.Pop()
				if err != nil || c == nil {
					b.Fatalf("Pop = %v, %v", c, err)
				}
				if err := r.q.Push(c, 16); err != nil {
					b.Fatal(err)
				}
				r.q.Notify()
				r.d.Offer(head)
			}
		})
	}
}
