package guestmem

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Layout of guest-physical memory. The hole below 4 GiB holds the virtio-mmio
// windows, the IOAPIC, the local APICs and what KVM_SET_TSS_ADDR takes.
const (
	PageSize = 4096
	GapStart = 3 << 30 // RAM below this address starts at 0
	GapEnd   = 4 << 30 // the rest of RAM starts here

	// MaxSize bounds Alloc. The host part of an address space is 47 bits; 1 TiB
	// leaves room and is more than one machine of today gives to one container.
	MaxSize = 1 << 40
)

var (
	// ErrRange says that an access is not wholly inside guest RAM.
	ErrRange = errors.New("guest address outside RAM")
	// ErrAlign says that an atomic access is not naturally aligned.
	ErrAlign = errors.New("guest address not aligned")
)

// Region is one contiguous piece of guest RAM.
type Region struct {
	Addr uint64 // guest-physical base
	Host []byte // host mapping, shared with the guest
}

func (r Region) end() uint64 { return r.Addr + uint64(len(r.Host)) }

// Memory is the RAM of one guest.
type Memory struct {
	regions []Region // ascending, no overlap
	size    uint64
	ram     []byte // all of it, if it is Alloc's, otherwise nil
	whole   []byte // what Close unmaps: ram and what is around it
}

// Alloc maps size bytes of zeroed RAM. Nothing is resident until the guest
// touches it. Preconditions: size is a multiple of the page size.
func Alloc(size uint64) (*Memory, error) {
	if size == 0 || size%PageSize != 0 || size > MaxSize {
		return nil, fmt.Errorf("guest memory of %d bytes: want a multiple of %d up to %d", size, PageSize, uint64(MaxSize))
	}
	host, whole, err := mapRAM(size)
	if err != nil {
		return nil, fmt.Errorf("guest memory of %d bytes: %w", size, err)
	}
	regions := []Region{{Addr: 0, Host: host}}
	if size > GapStart {
		regions = []Region{
			{Addr: 0, Host: host[:GapStart:GapStart]},
			{Addr: GapEnd, Host: host[GapStart:]},
		}
	}
	m, err := FromRegions(regions...)
	if err != nil {
		_ = unmapRAM(whole)
		return nil, err
	}
	m.ram, m.whole = host, whole
	return m, nil
}

// MapFile makes the n bytes at addr those of the file at off, without a copy:
// guests share the page cache's pages until they write, and nothing is written to the
// file. Addr, off and n are multiples of PageSize, and m is Alloc's, otherwise the error is
// ErrAlign or errors.ErrUnsupported. The file must stay as it is while the guest
// lives: it is replaced by a new file of the same name, never overwritten.
//
// It is for building a guest: nobody else uses the memory yet.
func (m *Memory) MapFile(addr uint64, f *os.File, off int64, n uint64) error {
	if addr%PageSize != 0 || off%PageSize != 0 || n%PageSize != 0 || n == 0 {
		return fmt.Errorf("%w: file pages at %#x", ErrAlign, addr)
	}
	if m.ram == nil {
		return errors.ErrUnsupported
	}
	dst, err := m.Slice(addr, n)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := info.Size(); off > size || n > uint64(size-off) {
		return fmt.Errorf("%s: %w", f.Name(), io.ErrUnexpectedEOF) // pages behind the end would be SIGBUS
	}
	if err := mapOver(dst, int(f.Fd()), off); err != nil {
		return &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return nil
}

// FromRegions makes a Memory of mappings that stay the caller's: Close does not
// unmap them. Each base and each length is a multiple of 8.
func FromRegions(regions ...Region) (*Memory, error) {
	m := &Memory{regions: slices.Clone(regions)}
	slices.SortFunc(m.regions, func(a, b Region) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	var last uint64
	for i, r := range m.regions {
		n := uint64(len(r.Host))
		switch {
		case n == 0:
			return nil, fmt.Errorf("guest memory region at %#x is empty", r.Addr)
		case r.Addr%8 != 0 || n%8 != 0 || hostAddr(r.Host)%8 != 0:
			return nil, fmt.Errorf("guest memory region at %#x: %w", r.Addr, ErrAlign)
		case r.Addr+n < r.Addr:
			return nil, fmt.Errorf("guest memory region at %#x wraps", r.Addr)
		case i > 0 && r.Addr < last:
			return nil, fmt.Errorf("guest memory regions overlap at %#x", r.Addr)
		}
		last = r.end()
		m.size += n
	}
	if len(m.regions) == 0 {
		return nil, errors.New("guest memory has no region")
	}
	return m, nil
}

// Regions returns the pieces of RAM in ascending order. The slice is the
// caller's; the host mappings are shared.
func (m *Memory) Regions() []Region { return slices.Clone(m.regions) }

// Size returns the bytes of RAM.
func (m *Memory) Size() uint64 { return m.size }

// Slice returns the n bytes at addr as one host view, or ErrRange if they are
// not wholly inside one region. Slice of 0 bytes checks addr alone and accepts
// the end of a region.
func (m *Memory) Slice(addr, n uint64) ([]byte, error) {
	for i := range m.regions {
		r := &m.regions[i]
		if addr < r.Addr {
			break
		}
		// off cannot overflow, and comparing n with what is left cannot either.
		off := addr - r.Addr
		size := uint64(len(r.Host))
		if off <= size && n <= size-off {
			return r.Host[off : off+n : off+n], nil
		}
	}
	return nil, rangeError(addr, n)
}

func rangeError(addr, n uint64) error {
	return fmt.Errorf("%w: %d bytes at %#x", ErrRange, n, addr)
}

// ReadAt copies guest memory into p. It may cross from one region into the
// next if they touch; otherwise p is left in part filled and ErrRange returned.
func (m *Memory) ReadAt(p []byte, addr uint64) error {
	return m.walk(addr, uint64(len(p)), func(host []byte) { p = p[copy(p, host):] })
}

// WriteAt copies p into guest memory, like ReadAt.
func (m *Memory) WriteAt(p []byte, addr uint64) error {
	return m.walk(addr, uint64(len(p)), func(host []byte) { p = p[copy(host, p):] })
}

// walk calls visit for each host piece of [addr, addr+n), in order.
func (m *Memory) walk(addr, n uint64, visit func([]byte)) error {
	if addr+n < addr {
		return rangeError(addr, n)
	}
	for i := range m.regions {
		r := &m.regions[i]
		if n == 0 {
			return nil
		}
		if addr < r.Addr {
			break
		}
		if addr >= r.end() {
			continue
		}
		off := addr - r.Addr
		k := min(n, uint64(len(r.Host))-off)
		visit(r.Host[off : off+k])
		addr, n = addr+k, n-k
	}
	if n != 0 {
		return rangeError(addr, n)
	}
	return nil
}

// Close unmaps the RAM that Alloc mapped. Preconditions: no vCPU runs and no
// slice of this memory is used again.
func (m *Memory) Close() error {
	whole := m.whole
	m.ram, m.whole = nil, nil
	if whole == nil {
		return nil
	}
	return unmapRAM(whole)
}
