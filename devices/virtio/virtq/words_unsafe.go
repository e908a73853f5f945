package virtq

import "unsafe"

// words32 views host memory as aligned 32-bit words, nil if it is not aligned.
// Bytes after the last whole word are left out.
func words32(b []byte) []uint32 {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%4 != 0 {
		return nil
	}
	// SAFETY: the words lie inside b, which is 4-aligned (checked) and holds no
	// pointers; the result keeps a heap-backed b alive, and guestmem keeps a mapping
	// alive until every device is done.
	return unsafe.Slice((*uint32)(p), len(b)/4)
}

// words64 is words32 for 64-bit words.
func words64(b []byte) []uint64 {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%8 != 0 {
		return nil
	}
	// SAFETY: as in words32, with 8-byte alignment checked.
	return unsafe.Slice((*uint64)(p), len(b)/8)
}
