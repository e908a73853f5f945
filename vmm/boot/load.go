package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

// What Load puts into the first MiB. Linux copies all of it early, before it
// uses that memory for other things.
const (
	gdtAddr       = 0x500
	startInfoAddr = 0x6000
	moduleAddr    = 0x7000
	memMapAddr    = 0x8000
	cmdlineAddr   = 0x9000

	// MaxCmdline is COMMAND_LINE_SIZE of x86 without the NUL.
	MaxCmdline = 2047

	lowRAMEnd = 0x9fc00  // base memory; the MP table is in the last KiB below 640 KiB
	highRAM   = 0x100000 // RAM goes on at 1 MiB
)

// struct hvm_start_info, hvm_modlist_entry and hvm_memmap_table_entry of
// include/xen/interface/hvm/start_info.h.
const (
	startInfoMagic   = 0x336ec578 // XEN_HVM_START_MAGIC_VALUE
	startInfoVersion = 1
	memMapRAM        = 1 // XEN_HVM_MEMMAP_TYPE_RAM

	moduleSize = 32
	memMapSize = 24
)

// ErrTooSmall says that kernel and initrd do not fit into guest memory.
var ErrTooSmall = errors.New("guest memory is too small")

// Params says what to hand to the kernel.
type Params struct {
	Cmdline string            // at most MaxCmdline bytes
	Initrd  *io.SectionReader // nil: none
	VCPUs   int               // that the MP table names, 1 to MaxVCPUs
}

// OpenInitrd opens a file for Params.Initrd. The caller closes it when Load has returned.
func OpenInitrd(path string) (*os.File, *io.SectionReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		err = &os.PathError{Op: "read", Path: path, Err: errors.New("empty file")}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, io.NewSectionReader(f, 0, info.Size()), nil
}

// Entry is the state in which vCPU 0 starts: 32-bit protected mode without
// paging, flat segments from the GDT, EBX = StartInfo.
type Entry struct {
	RIP       uint32
	StartInfo uint32
	GDT       uint32 // base of four entries: null, code, data, TSS
}

// Selectors in the GDT of Entry.
const (
	SelectorCode = 0x08
	SelectorData = 0x10
	SelectorTSS  = 0x18
	GDTLimit     = 4*8 - 1
)

// Load puts the kernel and everything it is told into mem. Whole pages of a file are not
// copied, see guestmem.MapFile. Preconditions: mem is zeroed, as guestmem.Alloc gives it,
// RAM starts at 0, and nobody else uses it yet.
func Load(mem *guestmem.Memory, k Kernel, p Params) (Entry, error) {
	entry, err := load(mem, k, p)
	if err != nil {
		return Entry{}, fmt.Errorf("load kernel %s: %w", k.path, err)
	}
	return entry, nil
}

func load(mem *guestmem.Memory, k Kernel, p Params) (Entry, error) {
	regions := mem.Regions()
	low := uint64(len(regions[0].Host))
	if regions[0].Addr != 0 || low <= highRAM {
		return Entry{}, fmt.Errorf("%w: RAM does not cover 0..1 MiB", ErrTooSmall)
	}
	if len(p.Cmdline) > MaxCmdline {
		return Entry{}, fmt.Errorf("command line of %d bytes, the kernel takes %d", len(p.Cmdline), MaxCmdline)
	}
	if err := k.placeIn(mem, low); err != nil {
		return Entry{}, err
	}
	module, err := loadInitrd(mem, k, p.Initrd, low)
	if err != nil {
		return Entry{}, err
	}
	table, err := mpTable(p.VCPUs)
	if err != nil {
		return Entry{}, err
	}
	ranges := memMap(regions)
	for _, w := range []struct {
		addr uint64
		data []byte
	}{
		{gdtAddr, gdt()},
		{startInfoAddr, startInfo(len(module)/moduleSize, len(ranges)/memMapSize)},
		{moduleAddr, module},
		{memMapAddr, ranges},
		{cmdlineAddr, append([]byte(p.Cmdline), 0)},
		{mpTableAddr, table},
	} {
		if err := mem.WriteAt(w.data, w.addr); err != nil {
			return Entry{}, err
		}
	}
	return Entry{RIP: k.entry, StartInfo: startInfoAddr, GDT: gdtAddr}, nil
}

// placeIn puts the segments where they belong. What the file does not fill is zero
// already.
func (k Kernel) placeIn(mem *guestmem.Memory, low uint64) error {
	for _, s := range k.segments {
		if s.end() > low {
			return fmt.Errorf("%w: the kernel ends at %d MiB, RAM at %d MiB", ErrTooSmall, s.end()>>20, low>>20)
		}
		if err := place(mem, s.phys, k.image, s.offset, s.filesz); err != nil {
			return fmt.Errorf("segment at %#x: %w", s.phys, err)
		}
	}
	return nil
}

// place makes the n bytes at addr those of the image at off. Whole pages are mapped if
// that can be: not every image is a file, nor every file system's files mappable.
func place(mem *guestmem.Memory, addr uint64, image io.ReaderAt, off int64, n uint64) error {
	const mask = guestmem.PageSize - 1
	end := addr + n
	first, last := end, end // the mapped pages; the rest is copied
	if f, ok := image.(*os.File); ok && addr&mask == uint64(off)&mask {
		lo, hi := (addr+mask)&^mask, end&^mask
		if lo < hi && mem.MapFile(lo, f, off+int64(lo-addr), hi-lo) == nil {
			first, last = lo, hi
		}
	}
	for _, part := range [2][2]uint64{{addr, first}, {last, end}} {
		dst, err := mem.Slice(part[0], part[1]-part[0])
		if err != nil {
			return err
		}
		// ReadAt of a whole slice fails with io.EOF only if the file shrank.
		if n, err := image.ReadAt(dst, off+int64(part[0]-addr)); n < len(dst) {
			return fmt.Errorf("read: %w", err)
		}
	}
	return nil
}

// loadInitrd puts the initrd at the top of the low RAM, where the kernel's own
// early allocations do not need to go around it, and returns its module entry.
func loadInitrd(mem *guestmem.Memory, k Kernel, initrd *io.SectionReader, low uint64) ([]byte, error) {
	if initrd == nil || initrd.Size() == 0 {
		return nil, nil
	}
	n := uint64(initrd.Size())
	top := k.segments[len(k.segments)-1].end()
	if n > low || (low-n)&^(guestmem.PageSize-1) < top {
		return nil, fmt.Errorf("%w: kernel up to %d MiB and initrd of %d KiB do not fit into %d MiB", ErrTooSmall, top>>20, n>>10, low>>20)
	}
	addr := (low - n) &^ (guestmem.PageSize - 1)
	image, off, _ := initrd.Outer()
	if err := place(mem, addr, image, off, n); err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	m := make([]byte, moduleSize)
	binary.LittleEndian.PutUint64(m, addr)
	binary.LittleEndian.PutUint64(m[8:], n)
	return m, nil
}

func memMap(regions []guestmem.Region) []byte {
	var table []byte
	add := func(addr, end uint64) {
		table = binary.LittleEndian.AppendUint64(table, addr)
		table = binary.LittleEndian.AppendUint64(table, end-addr)
		table = binary.LittleEndian.AppendUint32(table, memMapRAM)
		table = binary.LittleEndian.AppendUint32(table, 0)
	}
	add(0, lowRAMEnd)
	add(highRAM, uint64(len(regions[0].Host)))
	for _, r := range regions[1:] {
		add(r.Addr, r.Addr+uint64(len(r.Host)))
	}
	return table
}

func startInfo(modules, ranges int) []byte {
	le := binary.LittleEndian
	p := make([]byte, 56)
	le.PutUint32(p, startInfoMagic)
	le.PutUint32(p[4:], startInfoVersion)
	le.PutUint32(p[12:], uint32(modules)) // nr_modules
	le.PutUint64(p[16:], moduleAddr)      // modlist_paddr
	le.PutUint64(p[24:], cmdlineAddr)     // cmdline_paddr
	le.PutUint64(p[40:], memMapAddr)      // memmap_paddr; rsdp_paddr before it stays 0
	le.PutUint32(p[48:], uint32(ranges))  // memmap_entries
	return p
}

// gdt is the table for the segments of Entry, in case the kernel reloads a
// selector before it has its own.
func gdt() []byte {
	p := make([]byte, GDTLimit+1)
	le := binary.LittleEndian
	le.PutUint64(p[SelectorCode:], 0x00cf9b000000ffff) // 4 GiB, 32-bit, execute and read
	le.PutUint64(p[SelectorData:], 0x00cf93000000ffff) // 4 GiB, read and write
	le.PutUint64(p[SelectorTSS:], 0x00008b0000000067)  // 32-bit TSS, busy
	return p
}
