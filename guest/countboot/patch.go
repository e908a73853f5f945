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

// patchKernel replaces pitCalibration in the loaded kernel by a function that
// returns what it would find: 1 GHz in kHz.
func patchKernel(mem *guestmem.Memory, systemMap string) error {
	syms, err := readSymbols(systemMap)
	if err != nil {
		return err
	}
	code := []byte{
		0xb8, 0x40, 0x42, 0x0f, 0x00, // mov $1000000, %eax
		0xc3, // ret
	}
	for _, s := range syms {
		if s.name != pitCalibration || s.addr < kernelMap {
			continue
		}
		var old [4]byte
		if err := mem.ReadAt(old[:], s.addr-kernelMap); err != nil {
			return err
		}
		if old != [4]byte{} {
			return mem.WriteAt(code, s.addr-kernelMap)
		}
	}
	return fmt.Errorf("countboot: %s does not belong to the kernel: no %s", systemMap, pitCalibration)
}
