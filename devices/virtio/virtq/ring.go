package virtq

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

// ring reads and writes the three parts of a split ring. sync/atomic has no
// 16-bit operations, so 16-bit fields go through the aligned 32-bit word around
// them: loads load that word, the header of the used ring is ours as a whole,
// and the one field that shares its word with memory of the driver, avail_event,
// is stored by compare-and-swap.
//
// Every atomic of Go is sequentially consistent, which is stronger than the
// barriers of virtio 1.2 §2.7.13 and §2.7.14.
type ring struct {
	size  uint16
	mask  uint16
	desc  table
	avail []uint32
	shift uint     // half-words from the start of avail to the available ring: 0 or 1
	used  []uint32 // flags and idx, then id and len per element, then avail_event
}

func newRing(mem *guestmem.Memory, size uint16, desc, avail, used uint64) (r ring, err error) {
	n := uint64(size)
	switch {
	case size == 0 || size > MaxSize || size&(size-1) != 0:
		return r, fmt.Errorf("%w: size %d", ErrRing, size)
	case desc%descAlign != 0 || avail%availAlign != 0 || used%usedAlign != 0:
		return r, fmt.Errorf("%w: addresses %#x %#x %#x not aligned", ErrRing, desc, avail, used)
	}
	// Round to the words that hold the first and the last field. Regions of RAM are
	// multiples of 8 bytes, so this never makes a ring inside RAM look outside.
	shift := avail % 4 / 2
	availLen := (2*shift + 6 + 2*n + 3) &^ 3
	usedLen := (6 + 8*n + 3) &^ 3
	descHost, err := mem.Slice(desc, DescSize*n)
	if err != nil {
		return r, fmt.Errorf("%w: descriptor table: %w", ErrRing, err)
	}
	availHost, err := mem.Slice(avail-2*shift, availLen)
	if err != nil {
		return r, fmt.Errorf("%w: available ring: %w", ErrRing, err)
	}
	usedHost, err := mem.Slice(used, usedLen)
	if err != nil {
		return r, fmt.Errorf("%w: used ring: %w", ErrRing, err)
	}
	r = ring{
		size: size, mask: size - 1,
		desc:  newTable(descHost),
		avail: words32(availHost), shift: uint(shift),
		used: words32(usedHost),
	}
	if r.desc.words == nil || r.avail == nil || r.used == nil {
		return r, fmt.Errorf("%w: host memory not aligned", ErrRing)
	}
	return r, nil
}

// avail16 loads the 16-bit field number i of the available ring: 0 is flags, 1
// is idx, then come the heads and used_event.
func (r *ring) avail16(i uint) uint16 {
	i += r.shift
	return uint16(atomic.LoadUint32(&r.avail[i/2]) >> (i % 2 * 16))
}

func (r *ring) availFlags() uint16        { return r.avail16(0) }
func (r *ring) availIdx() uint16          { return r.avail16(1) }
func (r *ring) availHead(i uint16) uint16 { return r.avail16(2 + uint(i&r.mask)) }
func (r *ring) usedEvent() uint16         { return r.avail16(2 + uint(r.size)) }

// storeUsedHeader publishes idx; all stores before it are visible first.
func (r *ring) storeUsedHeader(flags, idx uint16) {
	atomic.StoreUint32(&r.used[0], uint32(flags)|uint32(idx)<<16)
}

func (r *ring) storeUsedElem(i, head uint16, n uint32) {
	at := 1 + 2*int(i&r.mask)
	atomic.StoreUint32(&r.used[at], uint32(head))
	atomic.StoreUint32(&r.used[at+1], n)
}

// storeAvailEvent is a full barrier. The upper half of the word is memory of the
// driver. A guest that changes it in a loop only makes this retry: each round
// needs a store to fall between two instructions.
func (r *ring) storeAvailEvent(idx uint16) {
	w := &r.used[1+2*int(r.size)]
	for {
		old := atomic.LoadUint32(w)
		if atomic.CompareAndSwapUint32(w, old, old&^0xffff|uint32(idx)) {
			return
		}
	}
}

// descriptor is one struct virtq_desc as loaded.
type descriptor struct {
	addr        uint64
	len         uint32
	flags, next uint16
}

// table is a descriptor table in guest memory: the queue's or an indirect one.
type table struct {
	words []uint64
	bytes []byte // instead of words, for an indirect table that is not 8-aligned
	n     uint32
}

func newTable(host []byte) table {
	t := table{words: words64(host), n: uint32(len(host) / DescSize)}
	if t.words == nil {
		t.bytes = host
	}
	return t
}

// load copies a descriptor out of guest memory once. Preconditions: i < t.n.
func (t *table) load(i uint32) descriptor {
	var lo, hi uint64
	if t.words != nil {
		lo, hi = atomic.LoadUint64(&t.words[2*i]), atomic.LoadUint64(&t.words[2*i+1])
	} else {
		var d [DescSize]byte
		copy(d[:], t.bytes[DescSize*i:])
		lo, hi = binary.LittleEndian.Uint64(d[:8]), binary.LittleEndian.Uint64(d[8:])
	}
	return descriptor{addr: lo, len: uint32(hi), flags: uint16(hi >> 32), next: uint16(hi >> 48)}
}
