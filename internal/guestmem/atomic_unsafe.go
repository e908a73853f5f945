package guestmem

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// hostAddr is the address of a mapping, for alignment checks only.
func hostAddr(p []byte) uintptr {
	// SAFETY: the pointer is only turned into a number, never back.
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))
}

// at returns a pointer to n naturally aligned bytes of guest memory.
func (m *Memory) at(addr, n uint64) (unsafe.Pointer, error) {
	if addr%n != 0 {
		return nil, fmt.Errorf("%w: %d bytes at %#x", ErrAlign, n, addr)
	}
	p, err := m.Slice(addr, n)
	if err != nil {
		return nil, err
	}
	// SAFETY: Slice checked that n bytes lie inside one mapping, which lives as
	// long as m. FromRegions checked that guest and host addresses agree modulo 8,
	// so the pointer is aligned for every n used here (2, 4, 8).
	return unsafe.Pointer(unsafe.SliceData(p)), nil
}

// Load16 reads a little-endian 16-bit value atomically.
func (m *Memory) Load16(addr uint64) (uint16, error) {
	p, err := m.at(addr, 2)
	if err != nil {
		return 0, err
	}
	return load16(p), nil
}

// Store16 writes a little-endian 16-bit value atomically. It is a full
// barrier: no later load is done before it.
func (m *Memory) Store16(addr uint64, v uint16) error {
	p, err := m.at(addr, 2)
	if err != nil {
		return err
	}
	store16(p, v)
	return nil
}

// Load32 reads a little-endian 32-bit value atomically.
func (m *Memory) Load32(addr uint64) (uint32, error) {
	p, err := m.at(addr, 4)
	if err != nil {
		return 0, err
	}
	// SAFETY: at returned an aligned pointer to 4 live bytes; amd64 is little endian.
	return atomic.LoadUint32((*uint32)(p)), nil
}

// Store32 writes a little-endian 32-bit value atomically, with a full barrier.
func (m *Memory) Store32(addr uint64, v uint32) error {
	p, err := m.at(addr, 4)
	if err != nil {
		return err
	}
	// SAFETY: as in Load32.
	atomic.StoreUint32((*uint32)(p), v)
	return nil
}

// Load64 reads a little-endian 64-bit value atomically.
func (m *Memory) Load64(addr uint64) (uint64, error) {
	p, err := m.at(addr, 8)
	if err != nil {
		return 0, err
	}
	// SAFETY: at returned an aligned pointer to 8 live bytes; amd64 is little endian.
	return atomic.LoadUint64((*uint64)(p)), nil
}

// Store64 writes a little-endian 64-bit value atomically, with a full barrier.
func (m *Memory) Store64(addr, v uint64) error {
	p, err := m.at(addr, 8)
	if err != nil {
		return err
	}
	// SAFETY: as in Load64.
	atomic.StoreUint64((*uint64)(p), v)
	return nil
}
