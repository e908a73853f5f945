package countboot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/vmm/boot"
)

const (
	pageSize = 4096
	lowEnd   = 1 << 20 // what vmm/boot writes besides kernel and initrd is below
	stubAt   = 1 << 20 // and this is free, for kernels are linked at 16 MiB
)

// image makes an ELF file that puts QEMU's guest into the state in which the
// VMM starts its guests: vmm/boot itself fills the memory, and the stub brings
// the part below 1 MiB, where the firmware works, to its place and enters the
// kernel. If report is set it reports the counter instead.
func (c Config) image(path string, report bool) error {
	mem, err := guestmem.Alloc(uint64(c.memory()) << 20)
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }()
	kernel, err := boot.Open(c.Kernel)
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	p := boot.Params{Cmdline: c.cmdline(), VCPUs: c.cpus()}
	if c.Initrd != "" {
		var file *os.File
		if file, p.Initrd, err = boot.OpenInitrd(c.Initrd); err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
	}
	entry, err := boot.Load(mem, kernel, p)
	if err != nil {
		return err
	}
	if err := patchKernel(mem, c.Map); err != nil {
		return err
	}
	segments := fullPages(mem)
	var low []segment
	for len(segments) > 0 && segments[0].addr < lowEnd {
		low = append(low, segments[0])
		segments = segments[1:]
	}
	stub, err := newStub(entry, low, report)
	if err != nil {
		return err
	}
	if len(segments) > 0 && segments[0].addr < stubAt+uint64(len(stub)) {
		return fmt.Errorf("countboot: %s begins at %#x, which the stub needs", c.Kernel, segments[0].addr)
	}
	return os.WriteFile(path, elfImage(append([]segment{{stubAt, stub}}, segments...), stubAt), 0o644)
}

// segment is a piece of guest memory.
type segment struct {
	addr uint64
	data []byte
}

// fullPages returns the pages of RAM that are not zero, neighbours together.
// None of them lies on both sides of lowEnd.
func fullPages(mem *guestmem.Memory) []segment {
	var all []segment
	zero := make([]byte, pageSize)
	for _, r := range mem.Regions() {
		for off := 0; off < len(r.Host); off += pageSize {
			page, addr := r.Host[off:off+pageSize], r.Addr+uint64(off)
			if bytes.Equal(page, zero) {
				continue
			}
			if n := len(all) - 1; n >= 0 && all[n].addr+uint64(len(all[n].data)) == addr && addr != lowEnd {
				all[n].data = append(all[n].data, page...)
			} else {
				all = append(all, segment{addr, bytes.Clone(page)})
			}
		}
	}
	return all
}

// elfImage is an ELF file of the segments with a PVH entry.
func elfImage(segments []segment, entry uint32) []byte {
	const (
		ehdr      = 64
		phdr      = 56
		ptLoad    = 1
		ptNote    = 4
		noteSize  = 12 + 4 + 4 // header, "Xen\0", 32-bit entry
		physEntry = 18         // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
	)
	var b bytes.Buffer
	le := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // a bytes.Buffer does not fail
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	le(uint16(2), uint16(62), uint32(1), uint64(entry), uint64(ehdr), uint64(0), uint32(0))
	le(uint16(ehdr), uint16(phdr), uint16(len(segments)+1), uint16(0), uint16(0), uint16(0))
	at := uint64(ehdr + (len(segments)+1)*phdr)
	le(uint32(ptNote), uint32(4), at, uint64(0), uint64(0), uint64(noteSize), uint64(noteSize), uint64(4))
	at += noteSize
	for _, s := range segments {
		size := uint64(len(s.data))
		le(uint32(ptLoad), uint32(7), at, s.addr, s.addr, size, size, uint64(1))
		at += size
	}
	le(uint32(4), uint32(4), uint32(physEntry))
	b.WriteString("Xen\x00")
	le(entry)
	for _, s := range segments {
		b.Write(s.data)
	}
	return b.Bytes()
}
