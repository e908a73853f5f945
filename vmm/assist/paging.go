package assist

import (
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
)

// Page-table bits (Intel SDM volume 3, 4.5).
const (
	pteP    = 1 << 0
	pteRW   = 1 << 1
	pteA    = 1 << 5
	pteD    = 1 << 6
	ptePS   = 1 << 7
	pteAddr = 0x000ffffffffff000

	pageSize = 4096
)

// space is a guest's linear address space as its kernel sees it at one moment.
type space struct {
	mem *guestmem.Memory
	s   *kvm.Sregs
}

// span is a piece of a linear range in guest-physical memory.
type span struct{ addr, n uint64 }

// translate returns where the n bytes at linear are, piece by piece. It faults
// as the CPU would for a supervisor access, and sets accessed and dirty bits.
// SMAP and protection keys are left out: they protect the guest's kernel from
// its own mistakes, and it is that kernel which runs.
func (a space) translate(linear, n uint64, write bool) ([]span, error) {
	la57 := a.s.CR4&cr4LA57 != 0
	var spans []span
	for n > 0 {
		if !canonical(linear, la57) {
			return nil, errGP
		}
		phys, err := a.walk(linear, write)
		if err != nil {
			return nil, err
		}
		k := min(n, pageSize-linear%pageSize)
		spans = append(spans, span{phys, k})
		linear, n = linear+k, n-k
	}
	return spans, nil
}

// walk follows the page tables for one address.
func (a space) walk(linear uint64, write bool) (uint64, error) {
	if a.s.CR0&cr0PG == 0 {
		return linear, nil
	}
	f := &fault{vector: vectorPF, hasCode: true, cr2: linear}
	if write {
		f.code |= pfWrite
	}
	levels := 4
	if a.s.CR4&cr4LA57 != 0 {
		levels = 5
	}
	table := a.s.CR3 & pteAddr
	writable := true
	for level := levels; level > 0; level-- {
		shift := 12 + 9*(level-1)
		at := table + linear>>shift&511*8
		pte, err := a.mem.Load64(at)
		if err != nil || pte&pteP == 0 {
			return 0, f // a table outside RAM reads as all ones on hardware; it faults too
		}
		writable = writable && pte&pteRW != 0
		leaf := level == 1 || (level <= 3 && pte&ptePS != 0)
		if leaf && write && !writable && a.s.CR0&cr0WP != 0 {
			f.code |= pfPresent
			return 0, f
		}
		a.mark(at, pte, leaf && write)
		if leaf {
			mask := uint64(1)<<shift - 1
			return pte&pteAddr&^mask | linear&mask, nil
		}
		table = pte & pteAddr
	}
	return 0, f
}

// mark sets the accessed and perhaps the dirty bit, if the entry has not
// changed meanwhile; if it has, the guest raced with itself.
func (a space) mark(at, pte uint64, dirty bool) {
	want := pte | pteA
	if dirty {
		want |= pteD
	}
	if want != pte {
		_, _ = a.mem.CompareAndSwap64(at, pte, want)
	}
}

// read copies from guest-linear memory.
func (a space) read(linear uint64, p []byte) error {
	spans, err := a.translate(linear, uint64(len(p)), false)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if a.mem.ReadAt(p[:s.n], s.addr) != nil {
			return errNotRAM
		}
		p = p[s.n:]
	}
	return nil
}

// write copies to guest-linear memory: all of it, or nothing.
func (a space) write(linear uint64, p []byte) error {
	spans, err := a.translate(linear, uint64(len(p)), true)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if _, err := a.mem.Slice(s.addr, s.n); err != nil {
			return errNotRAM
		}
	}
	for _, s := range spans {
		if a.mem.WriteAt(p[:s.n], s.addr) != nil {
			return errNotRAM
		}
		p = p[s.n:]
	}
	return nil
}

// errNotRAM is what an operand in a device window gives. Kernels do not put
// such operands there.
var errNotRAM = errGP
