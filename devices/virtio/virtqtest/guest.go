package virtqtest

import (
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

// Guest-physical layout of a test guest: low RAM, then a hole, then more RAM,
// so that a test can aim at the hole between.
const (
	RAMSize   = 16 << 20
	HoleAddr  = 24 << 20 // not RAM
	HighStart = 32 << 20
	HighSize  = 1 << 20
)

// Guest is a guest's memory and an allocator for it.
type Guest struct {
	Mem *guestmem.Memory

	t   testing.TB
	end uint64

	mu   sync.Mutex
	next uint64 // protected by mu
}

// NewGuest makes a guest of RAMSize+HighSize bytes.
func NewGuest(t testing.TB) *Guest {
	t.Helper()
	mem, err := guestmem.FromRegions(
		guestmem.Region{Addr: 0, Host: make([]byte, RAMSize)},
		guestmem.Region{Addr: HighStart, Host: make([]byte, HighSize)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return &Guest{Mem: mem, t: t, next: guestmem.PageSize, end: RAMSize}
}

// NewSmallGuest makes a guest of size bytes at address 0 and no more, for fuzz
// targets that make many.
func NewSmallGuest(t testing.TB, size uint64) *Guest {
	t.Helper()
	mem, err := guestmem.FromRegions(guestmem.Region{Host: make([]byte, size)})
	if err != nil {
		t.Fatal(err)
	}
	return &Guest{Mem: mem, t: t, end: size}
}

// Alloc returns the address of n fresh zero bytes of low RAM, 16-aligned.
func (g *Guest) Alloc(n uint64) uint64 {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	addr := g.next
	g.next += (n + 15) &^ 15
	if g.next > g.end {
		g.t.Fatalf("virtqtest: guest RAM used up by %d bytes more", n)
	}
	return addr
}

// Write copies p into guest memory.
func (g *Guest) Write(addr uint64, p []byte) {
	g.t.Helper()
	if err := g.Mem.WriteAt(p, addr); err != nil {
		g.t.Fatal(err)
	}
}

// Read copies n bytes out of guest memory.
func (g *Guest) Read(addr uint64, n int) []byte {
	g.t.Helper()
	p := make([]byte, n)
	if err := g.Mem.ReadAt(p, addr); err != nil {
		g.t.Fatal(err)
	}
	return p
}
