// Package bus routes guest accesses to the device that owns the address. It
// serves for MMIO and, as a second Bus, for port I/O.
//
// A handler sees offsets into its own window and does not know where it sits.
// Handlers are called by several vCPU threads at once and lock for themselves.
//
//	var b bus.Bus
//	err := b.Insert(0xd0000000, 0x200, transport)
//	if !b.Read(exit.Addr, exit.Data) { ... } // nobody there
package bus

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Handler is a device as the bus sees it. p has the width of the access: 1, 2,
// 4 or 8 bytes from a vCPU, and a handler must survive any other. Read fills
// all of p.
type Handler interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

// ErrRange says that a window is empty, wraps or overlaps another one.
var ErrRange = errors.New("bus window invalid")

// window is [base, last]: with the last address instead of the end, a window
// may reach the top of the address space.
type window struct {
	base, last uint64
	handler    Handler
}

// Bus is a set of windows. The zero Bus is empty and ready for use. Look-ups
// take no lock.
type Bus struct {
	mu      sync.Mutex               // serialises Insert
	windows atomic.Pointer[[]window] // ascending, no overlap; replaced, never changed
}

// Insert adds a window of size bytes at base.
func (b *Bus) Insert(base, size uint64, h Handler) error {
	last := base + size - 1
	if h == nil || size == 0 || last < base {
		return fmt.Errorf("%w: %#x bytes at %#x", ErrRange, size, base)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var old []window
	if p := b.windows.Load(); p != nil {
		old = *p
	}
	i, _ := slices.BinarySearchFunc(old, base, func(w window, base uint64) int {
		if w.base < base {
			return -1
		}
		return 1
	})
	if i > 0 && old[i-1].last >= base || i < len(old) && old[i].base <= last {
		return fmt.Errorf("%w: %#x bytes at %#x overlap another window", ErrRange, size, base)
	}
	next := slices.Insert(slices.Clone(old), i, window{base: base, last: last, handler: h})
	b.windows.Store(&next)
	return nil
}

// find returns the window that holds all n bytes at addr. An access that
// straddles the end of a window belongs to nobody.
func (b *Bus) find(addr uint64, n int) (Handler, uint64) {
	p := b.windows.Load()
	if p == nil || n == 0 {
		return nil, 0
	}
	ws := *p
	lo, hi := 0, len(ws)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if ws[mid].last < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(ws) || addr < ws[lo].base || ws[lo].last-addr < uint64(n-1) {
		return nil, 0
	}
	return ws[lo].handler, addr - ws[lo].base
}

// Read performs a guest read. False says that nobody is there; p is all ones
// then, as on a real bus.
func (b *Bus) Read(addr uint64, p []byte) bool {
	h, off := b.find(addr, len(p))
	if h == nil {
		for i := range p {
			p[i] = 0xff
		}
		return false
	}
	h.Read(off, p)
	return true
}

// Write performs a guest write. False says that nobody is there.
func (b *Bus) Write(addr uint64, p []byte) bool {
	h, off := b.find(addr, len(p))
	if h == nil {
		return false
	}
	h.Write(off, p)
	return true
}
