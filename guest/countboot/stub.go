package countboot

import (
	"bytes"
	"encoding/binary"
)

// debugPort is where the stub writes the counter: QEMU's isa-debugcon.
const debugPort = 0xe9

// stubKernel is an ELF file with a PVH entry whose code reads the time stamp
// counter, writes its eight bytes to debugPort, lowest first, and halts.
func stubKernel() []byte {
	code := []byte{
		0x0f, 0x31, // rdtsc
		0xb9, 4, 0, 0, 0, // mov $4, %ecx
		0xe6, debugPort, // 1: out %al, $debugPort
		0xc1, 0xe8, 8, // shr $8, %eax
		0xe2, 0xf9, // loop 1b
		0x89, 0xd0, // mov %edx, %eax
		0xb9, 4, 0, 0, 0, // mov $4, %ecx
		0xe6, debugPort, // 2: out %al, $debugPort
		0xc1, 0xe8, 8, // shr $8, %eax
		0xe2, 0xf9, // loop 2b
		0xf4,       // 3: hlt
		0xeb, 0xfd, // jmp 3b
	}
	const (
		load     = 0x100000 // physical address of the file's first byte
		ehdr     = 64
		phdr     = 56
		noteAt   = ehdr + 2*phdr
		noteSize = 12 + 4 + 4 // header, "Xen\0", 32-bit entry
		codeAt   = noteAt + noteSize
		ptLoad   = 1
		ptNote   = 4
		physEntr = 18 // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
	)
	var b bytes.Buffer
	le := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // a bytes.Buffer does not fail
		}
	}
	size := uint64(codeAt + len(code))
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	le(uint16(2), uint16(62), uint32(1), uint64(load+codeAt), uint64(ehdr), uint64(0), uint32(0))
	le(uint16(ehdr), uint16(phdr), uint16(2), uint16(0), uint16(0), uint16(0))
	le(uint32(ptLoad), uint32(7), uint64(0), uint64(load), uint64(load), size, size, uint64(0x1000))
	le(uint32(ptNote), uint32(4), uint64(noteAt), uint64(load+noteAt), uint64(load+noteAt), uint64(noteSize), uint64(noteSize), uint64(4))
	le(uint32(4), uint32(4), uint32(physEntr))
	b.WriteString("Xen\x00")
	le(uint32(load + codeAt))
	b.Write(code)
	return b.Bytes()
}
