//go:build race

package guestmem

import (
	"sync/atomic"
	"unsafe"
)

// The race detector does not see assembly. In race builds the 16-bit accesses
// go through the aligned 32-bit word around them, so that a device and a
// driver-side fake that share a ring are seen to synchronise.

func word(p unsafe.Pointer) (*uint32, uint) {
	// SAFETY: p is 2-aligned inside a region whose base and length are multiples of
	// 8, so the 4-aligned word around it lies inside the same region.
	off := uintptr(p) & 2
	return (*uint32)(unsafe.Add(p, -int(off))), uint(off) * 8
}

func load16(p unsafe.Pointer) uint16 {
	w, shift := word(p)
	return uint16(atomic.LoadUint32(w) >> shift)
}

func store16(p unsafe.Pointer, v uint16) {
	w, shift := word(p)
	for {
		old := atomic.LoadUint32(w)
		if atomic.CompareAndSwapUint32(w, old, old&^(0xffff<<shift)|uint32(v)<<shift) {
			return
		}
	}
}
