package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// ELF-64 as <elf.h> names it. debug/elf is not used: it reads section headers,
// which loading does not need, and it trusts some of their sizes.
const (
	elfHeaderSize  = 64 // sizeof(Elf64_Ehdr)
	progHeaderSize = 56 // sizeof(Elf64_Phdr)
	noteHeaderSize = 12 // sizeof(Elf64_Nhdr)
	elfClass64     = 2  // ELFCLASS64
	elfData2LSB    = 1  // ELFDATA2LSB
	elfTypeExec    = 2  // ET_EXEC
	elfTypeDyn     = 3  // ET_DYN
	elfMachineX64  = 62 // EM_X86_64
	progLoad       = 1  // PT_LOAD
	progNote       = 4  // PT_NOTE

	xenPhys32Entry = 18 // XEN_ELFNOTE_PHYS32_ENTRY

	maxProgHeaders = 64
	maxNoteSize    = 64 << 10
)

var (
	elfMagic = []byte("\x7fELF")
	xenName  = []byte("Xen\x00")
)

// Where a kernel may be: above the first MiB, which holds what Load writes, and
// below the hole under 4 GiB.
const (
	lowestKernel = 1 << 20
	highestRAM   = 3 << 30
)

func parseELF(image io.ReaderAt, size uint64) (Kernel, error) {
	var head [elfHeaderSize]byte
	if err := readAt(image, head[:], 0, size, "ELF header"); err != nil {
		return Kernel{}, err
	}
	le := binary.LittleEndian
	switch {
	case !bytes.HasPrefix(head[:], elfMagic):
		return Kernel{}, fmt.Errorf("%w: not an ELF file", ErrKernel)
	case head[4] != elfClass64 || head[5] != elfData2LSB || le.Uint16(head[18:]) != elfMachineX64:
		return Kernel{}, fmt.Errorf("%w: an ELF file, but not for x86-64", ErrKernel)
	}
	if t := le.Uint16(head[16:]); t != elfTypeExec && t != elfTypeDyn {
		return Kernel{}, fmt.Errorf("%w: ELF type %d is not executable", ErrKernel, t)
	}
	phoff, phsize, phnum := le.Uint64(head[32:]), le.Uint16(head[54:]), le.Uint16(head[56:])
	if phsize != progHeaderSize || phnum == 0 || phnum > maxProgHeaders {
		return Kernel{}, fmt.Errorf("%w: %d program headers of %d bytes", ErrKernel, phnum, phsize)
	}
	headers := make([]byte, int(phnum)*progHeaderSize)
	if err := readAt(image, headers, phoff, size, "program headers"); err != nil {
		return Kernel{}, err
	}
	k := Kernel{image: image}
	hasEntry := false
	for p := range slices.Chunk(headers, progHeaderSize) {
		switch le.Uint32(p) {
		case progLoad:
			s, err := loadSegment(p, size)
			if err != nil {
				return Kernel{}, err
			}
			if s.memsz > 0 {
				k.segments = append(k.segments, s)
			}
		case progNote:
			entry, ok, err := noteEntry(image, p, size)
			if err != nil {
				return Kernel{}, err
			}
			if ok {
				k.entry, hasEntry = entry, true
			}
		}
	}
	if !hasEntry {
		return Kernel{}, fmt.Errorf("%w: no PVH entry note; build the kernel with CONFIG_PVH=y", ErrKernel)
	}
	return k, k.check()
}

func loadSegment(p []byte, size uint64) (segment, error) {
	le := binary.LittleEndian
	off, phys := le.Uint64(p[8:]), le.Uint64(p[24:])
	filesz, memsz := le.Uint64(p[32:]), le.Uint64(p[40:])
	switch {
	case filesz > memsz:
		return segment{}, fmt.Errorf("%w: segment at %#x has more bytes in the file (%#x) than in memory (%#x)", ErrKernel, phys, filesz, memsz)
	case off > size || filesz > size-off:
		return segment{}, fmt.Errorf("%w: segment at %#x ends beyond the file (truncated?)", ErrKernel, phys)
	case memsz > 0 && (phys < lowestKernel || phys > highestRAM || memsz > highestRAM-phys):
		return segment{}, fmt.Errorf("%w: segment at %#x of %#x bytes is outside 1 MiB..3 GiB", ErrKernel, phys, memsz)
	}
	return segment{offset: int64(off), filesz: filesz, phys: phys, memsz: memsz}, nil
}

// check looks at all segments together, and sorts them.
func (k *Kernel) check() error {
	slices.SortFunc(k.segments, func(a, b segment) int {
		if a.phys < b.phys {
			return -1
		}
		return 1
	})
	inside := false
	for i, s := range k.segments {
		if i > 0 && k.segments[i-1].end() > s.phys {
			return fmt.Errorf("%w: segments overlap at %#x", ErrKernel, s.phys)
		}
		if e := uint64(k.entry); e >= s.phys && e < s.phys+s.filesz {
			inside = true
		}
	}
	if !inside {
		return fmt.Errorf("%w: PVH entry %#x is in no segment", ErrKernel, k.entry)
	}
	return nil
}

// noteEntry looks for the PVH entry in the PT_NOTE segment p.
func noteEntry(image io.ReaderAt, p []byte, size uint64) (entry uint32, ok bool, err error) {
	le := binary.LittleEndian
	off, filesz := le.Uint64(p[8:]), le.Uint64(p[32:])
	if filesz > maxNoteSize {
		return 0, false, fmt.Errorf("%w: notes of %d bytes", ErrKernel, filesz)
	}
	notes := make([]byte, filesz)
	if err := readAt(image, notes, off, size, "notes"); err != nil {
		return 0, false, err
	}
	for len(notes) >= noteHeaderSize {
		namesz, descsz, typ := le.Uint32(notes), le.Uint32(notes[4:]), le.Uint32(notes[8:])
		notes = notes[noteHeaderSize:]
		name, rest, ok := cutNote(notes, namesz)
		if !ok {
			break
		}
		desc, rest, ok := cutNote(rest, descsz)
		if !ok {
			break
		}
		if typ == xenPhys32Entry && bytes.Equal(name, xenName) && (len(desc) == 4 || len(desc) == 8) {
			return le.Uint32(desc), true, nil
		}
		notes = rest
	}
	return 0, false, nil
}

// cutNote splits n bytes and the padding to 4 off p. The padding of the last
// note may be missing.
func cutNote(p []byte, n uint32) (field, rest []byte, ok bool) {
	if uint64(n) > uint64(len(p)) {
		return nil, nil, false
	}
	padded := min((uint64(n)+3)&^3, uint64(len(p)))
	return p[:n], p[padded:], true
}

func readAt(image io.ReaderAt, p []byte, off, size uint64, what string) error {
	if off > size || uint64(len(p)) > size-off {
		return fmt.Errorf("%w: %s end beyond the file (truncated?)", ErrKernel, what)
	}
	if _, err := image.ReadAt(p, int64(off)); err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}
