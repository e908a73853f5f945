package balloon

import (
	"bytes"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/guestmem"
)

func start(t *testing.T, d *Device, features uint64) (*virtqtest.Guest, *virtqtest.Driver) {
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
	drv.Start(features)
	return g, drv
}

// pages fills n pages of the guest, from a page boundary on.
func pages(g *virtqtest.Guest, n uint64) virtqtest.Buf {
	addr := g.Alloc((n+1)*guestmem.PageSize) + guestmem.PageSize - 1
	addr &^= guestmem.PageSize - 1
	g.Write(addr, bytes.Repeat([]byte{0xaa}, int(n*guestmem.PageSize)))
	return virtqtest.Buf{Addr: addr, Len: uint32(n * guestmem.PageSize), Writable: true}
}

// filled says which bytes of a range still hold what pages wrote.
func filled(g *virtqtest.Guest, addr uint64, n int) int {
	return bytes.Count(g.Read(addr, n), []byte{0xaa})
}

func TestReport(t *testing.T) {
	d := New()
	g, drv := start(t, d, FeatureReporting)
	if id := drv.Get32(virtqtest.RegDeviceID); id != 5 {
		t.Fatalf("device id %d", id)
	}
	if c := drv.Config(0, 8); !bytes.Equal(c, make([]byte, 8)) {
		t.Errorf("configuration %x: the guest is asked for pages", c)
	}
	a, kept, b := pages(g, 3), pages(g, 1), pages(g, 2)
	q := drv.Queue(reportingQueue)
	q.Add(a, b)
	q.Kick()
	if u := q.WaitUsed(); u.Written != 0 {
		t.Errorf("%d bytes written", u.Written)
	}
	for _, r := range []virtqtest.Buf{a, b} {
		if n := filled(g, r.Addr, int(r.Len)); n != 0 {
			t.Errorf("%d bytes of a reported range of %d are still there", n, r.Len)
		}
	}
	if n := filled(g, kept.Addr, int(kept.Len)); n != int(kept.Len) {
		t.Errorf("%d of %d bytes are left of what was not reported", n, kept.Len)
	}
	if n := d.Returned(); n != 5*guestmem.PageSize {
		t.Errorf("%d bytes returned", n)
	}
}

// TestOddRanges: only whole pages go, whatever a guest reports, and it gets its answer.
func TestOddRanges(t *testing.T) {
	d := New()
	g, drv := start(t, d, FeatureReporting)
	r := pages(g, 4)
	const page = guestmem.PageSize
	q := drv.Queue(reportingQueue)
	for _, odd := range []virtqtest.Buf{
		{Addr: r.Addr, Len: 100, Writable: true},
		{Addr: r.Addr + 1, Len: 2 * page, Writable: true},
		{Addr: r.Addr + page - 1, Len: 1, Writable: true},
		{Addr: r.Addr, Len: page}, // not writable: no report
	} {
		q.Add(odd)
		q.Kick()
		q.WaitUsed()
		if n := filled(g, r.Addr, 4*page); n != 4*page {
			t.Fatalf("%+v: %d bytes are gone", odd, 4*page-n)
		}
	}
	q.Add(virtqtest.Buf{Addr: r.Addr + page, Len: page + 7, Writable: true})
	q.Kick()
	q.WaitUsed()
	if n := filled(g, r.Addr, 4*page); n != 3*page || filled(g, r.Addr+page, page) != 0 {
		t.Errorf("%d bytes are gone, want the second page", 4*page-n)
	}
}

// TestUnasked: a balloon that the guest blows up by itself does nothing.
func TestUnasked(t *testing.T) {
	g, drv := start(t, New(), FeatureReporting)
	r := pages(g, 1)
	for _, i := range []int{inflateQueue, deflateQueue} {
		q := drv.Queue(i)
		q.Add(q.Out([]byte{1, 0, 0, 0}))
		q.Kick()
		q.WaitUsed()
	}
	if n := filled(g, r.Addr, int(r.Len)); n != int(r.Len) {
		t.Errorf("%d bytes left", n)
	}
	drv.Reset()
	drv.Start(FeatureReporting)
	q := drv.Queue(reportingQueue)
	q.Add(r)
	q.Kick()
	q.WaitUsed()
	if n := filled(g, r.Addr, int(r.Len)); n != 0 {
		t.Errorf("after a reset %d bytes are still there", n)
	}
}

// TestResetUnderLoad: a reset ends with reports on their way.
func TestResetUnderLoad(t *testing.T) {
	g, drv := start(t, New(), FeatureReporting)
	r := pages(g, 64)
	for range 20 {
		q := drv.Queue(reportingQueue)
		for range QueueSize {
			q.Add(r)
		}
		q.ForceKick()
		begin := time.Now()
		drv.Reset()
		if took := time.Since(begin); took > time.Second {
			t.Fatalf("reset took %v", took)
		}
		drv.Start(FeatureReporting)
	}
}
