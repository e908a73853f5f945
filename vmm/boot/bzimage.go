package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Offsets in the setup header (Documentation/arch/x86/boot.rst, "Details of
// Header Fields").
const (
	bzSetupSects    = 0x1f1 // setup_sects
	bzBootFlag      = 0x1fe // boot_flag
	bzHeader        = 0x202 // header, "HdrS"
	bzVersion       = 0x206 // version
	bzPayloadOffset = 0x248 // payload_offset, since 2.08
	bzPayloadLength = 0x24c // payload_length, since 2.08
	bzHeaderEnd     = 0x250

	bzBootFlagValue = 0xaa55
	bzMinVersion    = 0x0208
	bzSectorSize    = 512
	bzDefaultSects  = 4 // what setup_sects == 0 means
)

func isBzImage(head []byte) bool {
	return len(head) >= bzHeaderEnd &&
		binary.LittleEndian.Uint16(head[bzBootFlag:]) == bzBootFlagValue &&
		bytes.Equal(head[bzHeader:bzHeader+4], []byte("HdrS"))
}

// unpackBzImage returns the vmlinux that the bzImage in data carries.
func unpackBzImage(data []byte) ([]byte, error) {
	if !isBzImage(data) {
		return nil, fmt.Errorf("%w: not a bzImage", ErrKernel)
	}
	le := binary.LittleEndian
	if v := le.Uint16(data[bzVersion:]); v < bzMinVersion {
		return nil, fmt.Errorf("%w: boot protocol %d.%02d is too old, 2.08 is needed", ErrKernel, v>>8, v&0xff)
	}
	sects := uint64(data[bzSetupSects])
	if sects == 0 {
		sects = bzDefaultSects
	}
	// None of these can overflow: 32-bit fields in 64-bit arithmetic.
	start := (sects+1)*bzSectorSize + uint64(le.Uint32(data[bzPayloadOffset:]))
	length := uint64(le.Uint32(data[bzPayloadLength:]))
	if start > uint64(len(data)) || length > uint64(len(data))-start {
		return nil, fmt.Errorf("%w: the payload (%#x bytes at %#x) ends beyond the file (truncated?)", ErrKernel, length, start)
	}
	return unpack(data[start : start+length])
}
