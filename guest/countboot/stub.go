package countboot

import (
	"encoding/binary"
	"fmt"

	"github.com/lucid-containers/lucid/vmm/boot"
)

// debugPort is where the stub writes the counter: QEMU's isa-debugcon.
const debugPort = 0xe9

// Registers of x86 as they are numbered in MOV r32, imm32 (0xb8+r).
const (
	eax = 0
	ecx = 1
	ebx = 3
	esi = 6
	edi = 7
)

// reporter reads the time stamp counter, writes its eight bytes to debugPort,
// lowest first, and halts.
var reporter = []byte{
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

// newStub returns 32-bit code for stubAt that copies low to where it belongs
// and jumps to the kernel with what the PVH ABI and vmm/entry.go promise it,
// or with the same number of instructions to the reporter.
func newStub(e boot.Entry, low []segment, report bool) ([]byte, error) {
	var code []byte
	mov := func(reg byte, v uint32) {
		code = binary.LittleEndian.AppendUint32(append(code, 0xb8+reg), v)
	}
	const (
		perCopy = 3*5 + 2           // three MOVs, REP MOVSL
		others  = 1 + 7 + 5 + 5 + 2 // CLD, LGDT, two MOVs, JMP
	)
	reportAt := uint32(stubAt + len(low)*perCopy + others)
	at := reportAt + uint32(len(reporter))
	// lgdt wants six bytes: limit and base.
	gdtAt := at
	at += 6
	data := binary.LittleEndian.AppendUint16(nil, boot.GDTLimit)
	data = binary.LittleEndian.AppendUint32(data, e.GDT)
	code = append(code, 0xfc) // cld
	for _, s := range low {
		if len(s.data)%4 != 0 || s.addr+uint64(len(s.data)) > lowEnd {
			return nil, fmt.Errorf("countboot: %d bytes at %#x are no whole words below 1 MiB", len(s.data), s.addr)
		}
		mov(esi, at)
		mov(edi, uint32(s.addr))
		mov(ecx, uint32(len(s.data)/4))
		code = append(code, 0xf3, 0xa5) // rep movsl
		data = append(data, s.data...)
		at += uint32(len(s.data))
	}
	code = binary.LittleEndian.AppendUint32(append(code, 0x0f, 0x01, 0x15), gdtAt) // lgdt gdtAt
	mov(ebx, e.StartInfo)
	if report {
		mov(eax, reportAt)
	} else {
		mov(eax, e.RIP)
	}
	code = append(code, 0xff, 0xe0) // jmp *%eax
	if stubAt+len(code) != int(reportAt) {
		return nil, fmt.Errorf("countboot: the stub has %d bytes of code", len(code))
	}
	return append(append(code, reporter...), data...), nil
}
