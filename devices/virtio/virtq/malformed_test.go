package virtq_test

import (
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/eventfd"
)

const (
	fNext, fWrite, fIndirect = virtqtest.FNext, virtqtest.FWrite, virtqtest.FIndirect

	dataAddr = 0x200000 // anything in RAM
)

// TestMalformedChains lays out what no sane driver would and checks what Pop
// makes of it. Each case begins with a fresh ring of 8.
func TestMalformedChains(t *testing.T) {
	type desc = virtqtest.Desc
	mk := func(addr uint64, n uint32, flags, next uint16) desc {
		return desc{Addr: addr, Len: n, Flags: flags, Next: next}
	}
	put := func(ds ...desc) func(*rig) {
		return func(r *rig) {
			for i, d := range ds {
				r.d.SetDesc(i, d)
			}
			r.d.Offer(0)
		}
	}
	// indirect makes descriptor 0 point to a table of ds.
	indirect := func(ds ...desc) func(*rig) {
		return func(r *rig) {
			tableAddr := r.g.Alloc(16 * uint64(len(ds)))
			for i, d := range ds {
				r.d.PutDesc(tableAddr, i, d)
			}
			r.d.SetDesc(0, mk(tableAddr, uint32(16*len(ds)), fIndirect, 0))
			r.d.Offer(0)
		}
	}
	long := func(n int) (ds []desc) {
		for i := range n {
			d := mk(dataAddr, 8, fNext, uint16(i+1))
			if i == n-1 {
				d.Flags = 0
			}
			ds = append(ds, d)
		}
		return ds
	}
	for _, tt := range []struct {
		name string
		lay  func(*rig)
		want error
	}{
		{"self loop", put(mk(dataAddr, 8, fNext, 0)), virtq.ErrLoop},
		{"loop of two", put(mk(dataAddr, 8, fNext, 1), mk(dataAddr, 8, fNext, 0)), virtq.ErrLoop},
		{"loop of eight", func(r *rig) {
			for i := range 8 {
				r.d.SetDesc(i, mk(dataAddr, 8, fNext, uint16(i+1)%8))
			}
			r.d.Offer(0)
		}, virtq.ErrLoop},
		{"chain of the whole queue", put(long(8)...), nil},
		{"next out of range", put(mk(dataAddr, 8, fNext, 8)), virtq.ErrIndex},
		{"next far out of range", put(mk(dataAddr, 8, fNext, 65535)), virtq.ErrIndex},
		{"head out of range", func(r *rig) { r.d.Offer(8) }, virtq.ErrIndex},
		{"head far out of range", func(r *rig) { r.d.Offer(65535) }, virtq.ErrIndex},
		{"address beyond RAM", put(mk(virtqtest.HighStart+virtqtest.HighSize, 8, 0, 0)), virtq.ErrAddr},
		{"address in a hole", put(mk(virtqtest.HoleAddr, 8, 0, 0)), virtq.ErrAddr},
		{"address at the device window", put(mk(0xd0000000, 8, fWrite, 0)), virtq.ErrAddr},
		{"last bytes of RAM", put(mk(virtqtest.RAMSize-8, 8, 0, 0)), nil},
		{"one byte over RAM", put(mk(virtqtest.RAMSize-8, 9, 0, 0)), virtq.ErrAddr},
		{"across a hole", put(mk(virtqtest.RAMSize-8, virtqtest.HighStart, 0, 0)), virtq.ErrAddr},
		{"address wraps", put(mk(math.MaxUint64-3, 8, 0, 0)), virtq.ErrAddr},
		{"longest length", put(mk(dataAddr, math.MaxUint32, fWrite, 0)), virtq.ErrAddr},
		{"empty", put(mk(dataAddr, 0, 0, 0)), nil},
		{"empty in a hole", put(mk(virtqtest.HoleAddr, 0, 0, 0)), virtq.ErrAddr},
		{"readable after writable", put(mk(dataAddr, 8, fWrite|fNext, 1), mk(dataAddr, 8, 0, 0)), virtq.ErrOrder},
		{"unknown flags", put(mk(dataAddr, 8, 0xfff8, 0)), nil},

		{"indirect", indirect(mk(dataAddr, 8, fNext, 1), mk(dataAddr, 8, fWrite, 0)), nil},
		{"indirect marked writable", func(r *rig) { // virtio 1.2 §2.7.5.3.2: ignored
			indirect(mk(dataAddr, 8, 0, 0))(r)
			a := r.g.Alloc(16)
			r.d.PutDesc(a, 0, mk(dataAddr, 8, 0, 0))
			r.d.SetDesc(0, mk(a, 16, fIndirect|fWrite, 0))
		}, nil},
		{"indirect after a direct one", func(r *rig) {
			a := r.g.Alloc(16)
			r.d.PutDesc(a, 0, mk(dataAddr, 8, fWrite, 0))
			put(mk(dataAddr, 8, fNext, 1), mk(a, 16, fIndirect, 0))(r)
		}, nil},
		{"indirect unaligned", func(r *rig) {
			a := r.g.Alloc(64) + 3
			r.g.Write(a, []byte{0, 0, 0x20, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0})
			put(mk(a, 16, fIndirect, 0))(r)
		}, nil},
		{"indirect nested", indirect(mk(dataAddr, 16, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect with next", put(mk(dataAddr, 16, fIndirect|fNext, 1)), virtq.ErrIndirect},
		{"indirect of no length", put(mk(dataAddr, 0, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect of 15 bytes", put(mk(dataAddr, 15, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect of 24 bytes", put(mk(dataAddr, 24, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect largest", indirect(long(virtq.MaxIndirect)...), nil},
		{"indirect too large", indirect(long(virtq.MaxIndirect + 1)...), virtq.ErrIndirect},
		{"indirect huge", put(mk(dataAddr, 0xfffffff0, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect partly outside", put(mk(virtqtest.RAMSize-16, 32, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect in a hole", put(mk(virtqtest.HoleAddr, 16, fIndirect, 0)), virtq.ErrIndirect},
		{"indirect loop", indirect(mk(dataAddr, 8, fNext, 0)), virtq.ErrLoop},
		{"indirect next out of the table", indirect(mk(dataAddr, 8, fNext, 1)), virtq.ErrIndex},

		{"avail idx jumps by the size", func(r *rig) {
			for i := range uint16(8) {
				r.d.SetDesc(int(i), mk(dataAddr, 8, 0, 0))
				r.d.SetAvail(i, i)
			}
			r.d.SetAvailIdx(8)
		}, nil},
		{"avail idx jumps by more", func(r *rig) { r.d.SetAvailIdx(9) }, virtq.ErrAvailIdx},
		{"avail idx goes back", func(r *rig) { r.d.SetAvailIdx(65535) }, virtq.ErrAvailIdx},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 8, false, true)
			tt.lay(r)
			c, err := r.q.Pop()
			if !errors.Is(err, tt.want) || (c == nil) != (tt.want != nil) {
				t.Fatalf("Pop = %v, %v, want %v", c, err, tt.want)
			}
			if tt.want == nil {
				return
			}
			if _, again := r.q.Pop(); !errors.Is(again, tt.want) {
				t.Fatalf("second Pop = %v, want the error to stay", again)
			}
			if r.q.EnableKicks(); r.d.UsedIdx() != 0 || r.q.InFlight() != 0 {
				t.Fatal("a chain of the malformed ring is in flight or used")
			}
		})
	}
}

func TestIndirectNotNegotiated(t *testing.T) {
	r := newRig(t, 8, false, false)
	r.d.SetDesc(0, virtqtest.Desc{Addr: dataAddr, Len: 16, Flags: fIndirect})
	r.d.Offer(0)
	if _, err := r.q.Pop(); !errors.Is(err, virtq.ErrIndirect) {
		t.Fatalf("Pop = %v", err)
	}
}

// TestTotal chains 4 GiB and more out of a small RAM by naming it often.
func TestTotal(t *testing.T) {
	for _, tt := range []struct {
		name string
		each uint32
		n    int
		want error
	}{
		{"exactly 4 GiB", 16 << 20, 256, nil},
		{"more than 4 GiB", 16 << 20, 257, virtq.ErrTotal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 512, false, false)
			for i := range tt.n {
				d := virtqtest.Desc{Addr: 0, Len: tt.each, Flags: fNext, Next: uint16(i + 1)}
				if i >= tt.n/2 {
					d.Flags |= fWrite
				}
				if i == tt.n-1 {
					d.Flags &^= fNext
				}
				r.d.SetDesc(i, d)
			}
			r.d.Offer(0)
			c, err := r.q.Pop()
			if !errors.Is(err, tt.want) {
				t.Fatalf("Pop = %v, want %v", err, tt.want)
			}
			if err == nil && c.ReadableLen()+c.WritableLen() != 1<<32 {
				t.Fatalf("lengths %d and %d", c.ReadableLen(), c.WritableLen())
			}
		})
	}
}

// TestOfferedTwice: the chains in flight are bounded by the queue.
func TestOfferedTwice(t *testing.T) {
	r := newRig(t, 8, false, false)
	r.d.SetDesc(3, virtqtest.Desc{Addr: dataAddr, Len: 8})
	r.d.Offer(3)
	r.d.Offer(3)
	c, err := r.q.Pop()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.q.Pop(); !errors.Is(err, virtq.ErrInFlight) {
		t.Fatalf("Pop = %v", err)
	}
	if err := r.q.Push(c, 0); err != nil || r.d.UsedIdx() != 1 {
		t.Fatalf("Push = %v: chains in flight must still be returned", err)
	}
}

func TestNewRefuses(t *testing.T) {
	g := virtqtest.NewGuest(t)
	kick, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer kick.Close()
	const end = virtqtest.RAMSize
	good := virtq.Config{
		Mem: g.Mem, Size: 8, Desc: 0x1000, Avail: 0x2000, Used: 0x3000,
		Kick: kick, Interrupt: func() {},
	}
	for _, tt := range []struct {
		name   string
		change func(*virtq.Config)
		ok     bool
	}{
		{"good", func(*virtq.Config) {}, true},
		{"size 0", func(c *virtq.Config) { c.Size = 0 }, false},
		{"size 1", func(c *virtq.Config) { c.Size = 1 }, true},
		{"size 3", func(c *virtq.Config) { c.Size = 3 }, false},
		{"size 65535", func(c *virtq.Config) { c.Size = 65535 }, false},
		{"size 32768", func(c *virtq.Config) { c.Size, c.Avail, c.Used = 32768, 0x100000, 0x200000 }, true},
		{"desc misaligned", func(c *virtq.Config) { c.Desc += 8 }, false},
		{"avail misaligned", func(c *virtq.Config) { c.Avail++ }, false},
		{"avail at half a word", func(c *virtq.Config) { c.Avail += 2 }, true},
		{"used misaligned", func(c *virtq.Config) { c.Used += 2 }, false},
		{"desc ends with RAM", func(c *virtq.Config) { c.Desc = end - 128 }, true},
		{"desc ends beyond RAM", func(c *virtq.Config) { c.Desc = end - 112 }, false},
		{"avail ends with RAM", func(c *virtq.Config) { c.Avail = end - 22 }, true},
		{"avail ends beyond RAM", func(c *virtq.Config) { c.Avail = end - 20 }, false},
		{"used ends with RAM", func(c *virtq.Config) { c.Used = end - 72 }, true},
		{"used ends beyond RAM", func(c *virtq.Config) { c.Used = end - 68 }, false},
		{"desc in a hole", func(c *virtq.Config) { c.Desc = virtqtest.HoleAddr }, false},
		{"avail wraps", func(c *virtq.Config) { c.Avail = math.MaxUint64 - 1 }, false},
		{"used wraps", func(c *virtq.Config) { c.Used = math.MaxUint64 - 3 }, false},
		{"desc wraps", func(c *virtq.Config) { c.Desc = math.MaxUint64 - 15 }, false},
		{"no memory", func(c *virtq.Config) { c.Mem = nil }, false},
		{"no kick", func(c *virtq.Config) { c.Kick = nil }, false},
		{"no interrupt", func(c *virtq.Config) { c.Interrupt = nil }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := virtq.New(cfg); (err == nil) != tt.ok || err != nil && !errors.Is(err, virtq.ErrRing) {
				t.Fatalf("New = %v, want ok %v", err, tt.ok)
			}
		})
	}
}

// TestOverlappingRings puts the used ring over the descriptors: the guest hurts
// itself and nobody else.
func TestOverlappingRings(t *testing.T) {
	g := virtqtest.NewGuest(t)
	kick, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer kick.Close()
	for _, addrs := range [][3]uint64{
		{0x1000, 0x1000, 0x1000},
		{0x1000, 0x1000, 0x1004},
		{0x1000, 0x2000, 0x1010},
		{0x1000, 0x2000, 0x2004},
		{0x1000, 0x1002, 0x2000},
	} {
		q, err := virtq.New(virtq.Config{
			Mem: g.Mem, Size: 8, Desc: addrs[0], Avail: addrs[1], Used: addrs[2],
			EventIdx: true, Indirect: true, Kick: kick, Interrupt: func() {},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			g.Write(0x1000+uint64(i%64), []byte{byte(i * 7)})
			c, err := q.Pop()
			if err != nil {
				break
			}
			if c != nil {
				_ = q.Push(c, uint32(c.WritableLen()))
			}
			q.Notify()
			q.EnableKicks()
		}
	}
}

// TestRewrittenDescriptors changes descriptors, indirect tables and indices
// while the device walks them. What Pop returns must be consistent and inside
// RAM, whatever it saw; the race detector watches.
func TestRewrittenDescriptors(t *testing.T) {
	r := newRig(t, 8, true, true)
	tableAddr := r.g.Alloc(16 * 4)
	good := []virtqtest.Desc{
		{Addr: dataAddr, Len: 64, Flags: fNext, Next: 1},
		{Addr: dataAddr + 64, Len: 64, Flags: fWrite | fNext, Next: 2},
		{Addr: dataAddr + 128, Len: 64, Flags: fWrite},
	}
	bad := []virtqtest.Desc{
		{Addr: virtqtest.HoleAddr, Len: 64, Flags: fWrite},
		{Addr: math.MaxUint64, Len: math.MaxUint32, Flags: fNext, Next: 9},
		{Addr: dataAddr, Len: 64, Flags: fNext, Next: 0},
		{Addr: tableAddr, Len: 64, Flags: fIndirect},
		{Addr: virtqtest.RAMSize - 4, Len: 8},
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for j := range good {
				r.d.SetDesc(j, good[j])
				r.d.PutDesc(tableAddr, j, good[j])
			}
			r.d.SetDesc(i%3, bad[i%len(bad)])
			r.d.PutDesc(tableAddr, i%3, bad[i*3%len(bad)])
		}
	})
	popped, failed := 0, 0
	// On a busy machine the other goroutine may come late.
	for i, begin := 0, time.Now(); i < 5000 || (popped == 0 || failed == 0) && time.Since(begin) < 30*time.Second; i++ {
		// A fresh queue each time, as the first malformed chain is the last.
		r.d.SetAvail(0, 0)
		r.d.SetAvailIdx(1)
		q := r.sameRing(t)
		c, err := q.Pop()
		if err != nil {
			failed++
			continue
		}
		popped++
		var sum uint64
		for _, b := range c.Readable() {
			sum += uint64(len(b))
		}
		for _, b := range c.Writable() {
			sum += uint64(len(b))
		}
		if sum != c.ReadableLen()+c.WritableLen() || sum > 8*64 {
			t.Fatalf("chain of %d bytes says %d and %d", sum, c.ReadableLen(), c.WritableLen())
		}
	}
	close(stop)
	wg.Wait()
	if popped == 0 || failed == 0 {
		t.Fatalf("%d popped, %d failed: the test did not see both", popped, failed)
	}
}

// sameRing makes another queue over the ring of r.
func (r *rig) sameRing(t testing.TB) *virtq.Queue {
	t.Helper()
	q, err := virtq.New(virtq.Config{
		Mem: r.g.Mem, Size: r.d.Size, Desc: r.d.Desc, Avail: r.d.Avail, Used: r.d.Used,
		EventIdx: true, Indirect: true, Kick: r.kick, Interrupt: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestAvailEventNeighbour: the half-word after avail_event is the driver's.
func TestAvailEventNeighbour(t *testing.T) {
	r := newRig(t, 8, true, false)
	at := r.d.Used + 4 + 8*8 + 2
	if err := r.g.Mem.Store16(at, 0xbeef); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		r.d.SetDesc(0, virtqtest.Desc{Addr: dataAddr, Len: 8})
		r.d.Offer(0)
		c, err := r.q.Pop()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.q.Push(c, 0); err != nil {
			t.Fatal(err)
		}
		r.q.EnableKicks()
		if got := r.d.AvailEvent(); got != uint16(i+1) {
			t.Fatalf("avail_event %d, want %d", got, i+1)
		}
	}
	if v, _ := r.g.Mem.Load16(at); v != 0xbeef {
		t.Fatalf("the driver's memory is %#x", v)
	}
}
