package boot

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

const rehearsalDir = "/run/lucid/rehearsal"

// rehearsalRootfs makes the root file system of wire.RehearsalRootfs.
func rehearsalRootfs() (string, error) {
	for _, dir := range []string{"", "/dev", "/proc", "/sys"} {
		if err := unix.Mkdir(rehearsalDir+dir, 0o755); err != nil && err != unix.EEXIST {
			return "", &os.PathError{Op: "mkdir", Path: rehearsalDir + dir, Err: err}
		}
	}
	return rehearsalDir, os.WriteFile(rehearsalDir+wire.RehearsalProgram, rehearsalProgram(), 0o755)
}

// rehearsalProgram is an ELF file: write(1, ".", 1) and exit_group(0).
func rehearsalProgram() []byte {
	return program([]byte{
		0xb8, 1, 0, 0, 0, // mov $SYS_write, %eax
		0xbf, 1, 0, 0, 0, // mov $1, %edi
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea 16(%rip), %rsi: the byte behind the code
		0xba, 1, 0, 0, 0, // mov $1, %edx
		0x0f, 0x05, // syscall
		0xb8, 231, 0, 0, 0, // mov $SYS_exit_group, %eax
		0x31, 0xff, // xor %edi, %edi
		0x0f, 0x05, // syscall
		'.',
	})
}

// PauseProgram writes a program that only waits into dir, and returns its path.
func PauseProgram(dir string) (string, error) {
	path := dir + "/pause"
	return path, os.WriteFile(path, program([]byte{
		0xb8, 34, 0, 0, 0, // mov $SYS_pause, %eax
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the start
	}), 0o700)
}

// program is an ELF file with this code.
func program(code []byte) []byte {
	const (
		base       = 0x400000
		headers    = 64 + 56 // Elf64_Ehdr, Elf64_Phdr
		typeExec   = 2       // ET_EXEC
		machineX86 = 62      // EM_X86_64
		load       = 1       // PT_LOAD
		readExec   = 5       // PF_R | PF_X
		page       = 0x1000
	)
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 64 bits, little endian
	b = le.AppendUint16(b, typeExec)
	b = le.AppendUint16(b, machineX86)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+headers) // entry
	b = le.AppendUint64(b, 64)           // program headers are here
	b = le.AppendUint64(b, 0)            // no section headers
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} { // sizes and counts of headers
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, load)
	b = le.AppendUint32(b, readExec)
	for _, v := range []uint64{0, base, base, headers + uint64(len(code)), headers + uint64(len(code)), page} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
