package guestmem

import (
	"sync/atomic"
	"unsafe"
)

// CompareAndSwap64 replaces old by v atomically and says whether it did.
func (m *Memory) CompareAndSwap64(addr, old, v uint64) (bool, error) {
	p, err := m.at(addr, 8)
	if err != nil {
		return false, err
	}
	// SAFETY: at returned an aligned pointer to 8 live bytes.
	return atomic.CompareAndSwapUint64((*uint64)(p), old, v), nil
}

// Uint128 is a 16-byte value: Lo is at the lower address.
type Uint128 struct{ Lo, Hi uint64 }

// CompareAndSwap128 is CMPXCHG16B with LOCK: it replaces old by v if memory
// holds old, and returns what memory held. Addr is a multiple of 16.
func (m *Memory) CompareAndSwap128(addr uint64, old, v Uint128) (held Uint128, swapped bool, err error) {
	if addr%16 != 0 {
		return held, false, ErrAlign
	}
	p, err := m.Slice(addr, 16)
	if err != nil {
		return held, false, err
	}
	if hostAddr(p)%16 != 0 {
		return held, false, ErrAlign
	}
	// SAFETY: Slice checked 16 live bytes in one mapping, and they are aligned.
	lo, hi, ok := cas128(unsafe.Pointer(unsafe.SliceData(p)), old.Lo, old.Hi, v.Lo, v.Hi)
	return Uint128{lo, hi}, ok, nil
}

// cas128 is in cas_amd64.s: sync/atomic ends at 64 bits.
//
//go:noescape
func cas128(p unsafe.Pointer, oldLo, oldHi, newLo, newHi uint64) (lo, hi uint64, swapped bool)
