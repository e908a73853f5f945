package virtqtest

import (
	"testing"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

// Descriptor flags and ring sizes, virtio 1.2 §2.7. They are repeated here and
// not imported from virtq, so that driver and device are written twice.
const (
	FNext     = 1
	FWrite    = 2
	FIndirect = 4

	descSize = 16
)

// Desc is one descriptor.
type Desc struct {
	Addr        uint64
	Len         uint32
	Flags, Next uint16
}

// UsedElem is one element of the used ring.
type UsedElem struct {
	Head, Written uint32
}

// Ring is a split ring in guest memory, seen by its driver. All accesses are
// atomic, as those of a driver on another CPU.
type Ring struct {
	Mem               *guestmem.Memory
	Size              uint16
	Desc, Avail, Used uint64

	t testing.TB
}

// NewRing allocates a zeroed ring.
func NewRing(t testing.TB, g *Guest, size uint16) *Ring {
	t.Helper()
	n := uint64(size)
	return &Ring{
		Mem: g.Mem, Size: size, t: t,
		Desc: g.Alloc(descSize * n), Avail: g.Alloc(6 + 2*n), Used: g.Alloc(6 + 8*n),
	}
}

func (r *Ring) must(err error) {
	if err != nil { // t.Helper costs a traceback: only when it fails
		r.t.Helper()
		r.t.Fatalf("virtqtest: ring: %v", err)
	}
}

func (r *Ring) load16(addr uint64) uint16 {
	v, err := r.Mem.Load16(addr)
	r.must(err)
	return v
}

func (r *Ring) store16(addr uint64, v uint16) {
	r.must(r.Mem.Store16(addr, v))
}

// PutDesc writes a descriptor into the table at addr: r.Desc or an indirect one.
func (r *Ring) PutDesc(tableAddr uint64, i int, d Desc) {
	at := tableAddr + uint64(i)*descSize
	r.must(r.Mem.Store64(at, d.Addr))
	r.must(r.Mem.Store64(at+8, uint64(d.Len)|uint64(d.Flags)<<32|uint64(d.Next)<<48))
}

// SetDesc writes descriptor i of the ring.
func (r *Ring) SetDesc(i int, d Desc) {
	r.PutDesc(r.Desc, i, d)
}

// SetAvail writes slot i (modulo the size) of the available ring.
func (r *Ring) SetAvail(i, head uint16) {
	r.store16(r.Avail+4+2*uint64(i%r.Size), head)
}

// SetAvailIdx publishes the available index.
func (r *Ring) SetAvailIdx(idx uint16) {
	r.store16(r.Avail+2, idx)
}

// AvailIdx reads back the available index.
func (r *Ring) AvailIdx() uint16 { return r.load16(r.Avail + 2) }

// SetAvailFlags writes the available flags; 1 is VIRTQ_AVAIL_F_NO_INTERRUPT.
func (r *Ring) SetAvailFlags(f uint16) { r.store16(r.Avail, f) }

// SetUsedEvent says at which used index the driver wants an interrupt.
func (r *Ring) SetUsedEvent(idx uint16) {
	r.store16(r.Avail+4+2*uint64(r.Size), idx)
}

// UsedFlags reads the used flags; 1 is VIRTQ_USED_F_NO_NOTIFY.
func (r *Ring) UsedFlags() uint16 { return r.load16(r.Used) }

// UsedIdx reads the used index.
func (r *Ring) UsedIdx() uint16 { return r.load16(r.Used + 2) }

// AvailEvent reads at which available index the device wants a kick.
func (r *Ring) AvailEvent() uint16 { return r.load16(r.Used + 4 + 8*uint64(r.Size)) }

// UsedAt reads slot i (modulo the size) of the used ring.
func (r *Ring) UsedAt(i uint16) UsedElem {
	at := r.Used + 4 + 8*uint64(i%r.Size)
	head, err := r.Mem.Load32(at)
	r.must(err)
	n, err := r.Mem.Load32(at + 4)
	r.must(err)
	return UsedElem{Head: head, Written: n}
}

// Offer appends head to the available ring and publishes it.
func (r *Ring) Offer(head uint16) {
	idx := r.AvailIdx()
	r.SetAvail(idx, head)
	r.SetAvailIdx(idx + 1)
}
