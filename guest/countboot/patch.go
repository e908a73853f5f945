package countboot

import (
	"fmt"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

// pitCalibration measures the clock of the CPU against the PIT for some ten
// million instructions. A KVM guest never calls it, for kvm-clock tells the
// frequency; QEMU's interpreter has no kvm-clock, and tsc_early_khz= comes too
// late to keep the kernel from it.
const pitCalibration = "quick_pit_calibrate"

// kernelMap is where the kernel maps its own image: __START_KERNEL_map.
const kernelMap = 0xffffffff80000000

// findQueues asks each virtio device for the size of each ring. QEMU's
// virtio-mmio answers 1024 for all, and the guest fills as many buffers of the
// console; the VMM's rings are small.
const findQueues = "vm_find_vqs"

// ringSize stands for the sizes of the VMM's rings. It is sizePort of
// devices/virtio/console; its other rings are smaller, and those of 9p and rng
// are not filled when the device starts.
const ringSize = 64

// patchKernel makes the loaded kernel find what it would find under the VMM:
// pitCalibration returns 1 GHz in kHz, and findQueues sees ringSize.
func patchKernel(mem *guestmem.Memory, systemMap string) error {
	syms, err := readSymbols(systemMap)
	if err != nil {
		return err
	}
	err = syms.patch(mem, pitCalibration, func(code []byte) bool {
		return copy(code, []byte{
			0xb8, 0x40, 0x42, 0x0f, 0x00, // mov $1000000, %eax
			0xc3, // ret
		}) == 6
	})
	if err != nil {
		return fmt.Errorf("countboot: %s: %w", systemMap, err)
	}
	if err := syms.patch(mem, findQueues, func(code []byte) bool { return fixRingSize(code, ringSize) }); err != nil {
		return fmt.Errorf("countboot: %s: %w", systemMap, err)
	}
	return nil
}

// patch hands out the code of a function of the kernel in mem.
func (s symbols) patch(mem *guestmem.Memory, name string, change func([]byte) bool) error {
	for i, f := range s {
		if f.name != name || f.addr < kernelMap || i+1 == len(s) {
			continue
		}
		code, err := mem.Slice(f.addr-kernelMap, s[i+1].addr-f.addr)
		if err != nil {
			return err
		}
		if change(code) {
			return nil
		}
	}
	return fmt.Errorf("the kernel has no %s as it is expected", name)
}

// fixRingSize replaces the one load of VIRTIO_MMIO_QUEUE_NUM_MAX, a
// MOV 0x34(%reg), %reg, by PUSH $size; POP %reg, which is as long.
func fixRingSize(code []byte, size byte) bool {
	const (
		movLoad, numMax = 0x8b, 0x34
		push8, pop, nop = 0x6a, 0x58, 0x90
		rex, rexR, rexB = 0x40, 0x44, 0x41
		modMask, mod8   = 0xc0, 0x40 // ModRM: an 8-bit displacement
		rmMask, rmSIB   = 7, 4
	)
	found := -1
	for i := 1; i+2 < len(code); i++ {
		if code[i] == movLoad && code[i+1]&modMask == mod8 && code[i+1]&rmMask != rmSIB && code[i+2] == numMax {
			if found >= 0 {
				return false
			}
			found = i
		}
	}
	if found < 0 {
		return false
	}
	reg := code[found+1] >> 3 & 7
	switch prefix := code[found-1]; prefix {
	case rexR, rexR | rexB:
		copy(code[found-1:], []byte{push8, size, rexB, pop + reg})
	case rexB:
		copy(code[found-1:], []byte{nop, push8, size, pop + reg})
	default:
		if prefix&0xf0 == rex { // the load is of 64 bits, or the byte ends another instruction
			return false
		}
		copy(code[found:], []byte{push8, size, pop + reg})
	}
	return true
}
