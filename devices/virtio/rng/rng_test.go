package rng

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

func start(t *testing.T, d *Device) *virtqtest.Driver {
	t.Helper()
	g := virtqtest.NewGuest(t)
	tr, err := mmio.New(mmio.Config{Device: d, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	drv := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	drv.Start(0)
	return drv
}

func TestEntropy(t *testing.T) {
	drv := start(t, New())
	if id := drv.Get32(virtqtest.RegDeviceID); id != 4 {
		t.Fatalf("device id %d", id)
	}
	q := drv.Queue(0)
	seen := map[string]bool{}
	for range 20 {
		q.Add(q.In(32), q.In(32))
		q.Kick()
		p := q.Data(q.WaitUsed())
		if len(p) != 64 || seen[string(p)] || bytes.Count(p, []byte{0}) > 16 {
			t.Fatalf("got %x", p)
		}
		seen[string(p)] = true
	}
}

func TestBounded(t *testing.T) {
	drv := start(t, New())
	q := drv.Queue(0)
	q.Add(q.In(3000), q.In(3000))
	q.Kick()
	if u := q.WaitUsed(); u.Written != MaxRequest {
		t.Fatalf("wrote %d, want %d", u.Written, MaxRequest)
	}
	q.Add(q.Out([]byte("nothing to write to")))
	q.Kick()
	if u := q.WaitUsed(); u.Written != 0 {
		t.Fatalf("wrote %d into nothing", u.Written)
	}
}

// TestRate empties the bucket and checks that more takes time, and that a reset
// does not wait for it.
func TestRate(t *testing.T) {
	drv := start(t, New())
	q := drv.Queue(0)
	in := q.In(MaxRequest)
	begin := time.Now()
	const total = Burst + 32*MaxRequest
	for range total / MaxRequest {
		q.Add(in)
		q.Kick()
		q.WaitUsed()
	}
	least := time.Duration(total-Burst) * time.Second / Rate
	if d := time.Since(begin); d < least/2 {
		t.Fatalf("%d bytes in %v, want about %v", total, d, least)
	}
	for range QueueSize {
		q.Add(in)
	}
	q.ForceKick()
	begin = time.Now()
	drv.Reset()
	if d := time.Since(begin); d > time.Second {
		t.Fatalf("reset took %v", d)
	}
	drv.Start(0)
	if p := drv.Queue(0).Request([]byte{0}, 8); len(p) != 8 {
		t.Fatalf("%d bytes after reset", len(p))
	}
}

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	b := bucket{level: 10, last: now}
	if w := b.take(10, now); w != 0 {
		t.Fatalf("wait %v with tokens left", w)
	}
	if w := b.take(Rate/2, now); w != time.Second/2 {
		t.Fatalf("wait %v, want half a second", w)
	}
	if w := b.take(0, now.Add(1000*time.Hour)); w != 0 || b.level > Burst {
		t.Fatalf("wait %v, level %d after a long time", w, b.level)
	}
}

func TestHostFault(t *testing.T) {
	d := New()
	d.fill = func([]byte) (int, error) { return 0, errors.New("no entropy") }
	drv := start(t, d)
	q := drv.Queue(0)
	q.Add(q.In(8))
	q.Kick()
	drv.WaitNeedsReset()
	drv.WaitConfigChange()
	drv.Reset()
}

func TestMalformed(t *testing.T) {
	drv := start(t, New())
	q := drv.Queue(0)
	q.Add(virtqtest.Buf{Addr: virtqtest.HoleAddr, Len: 8, Writable: true})
	q.Kick()
	drv.WaitNeedsReset()
}
