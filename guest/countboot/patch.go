package countboot

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
)

// pitCalibration measures the clock of the CPU against the PIT for some ten
// million instructions. A KVM guest never calls it, for kvm-clock tells the
// frequency; QEMU's interpreter has no kvm-clock, and tsc_early_khz= comes too
// late to keep the kernel from it.
const pitCalibration = "quick_pit_calibrate"

// patchKernel copies the kernel to path with pitCalibration replaced by a
// function that returns what it would find: 1 GHz in kHz.
func patchKernel(kernel, systemMap, path string) error {
	syms, err := readSymbols(systemMap)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(kernel)
	if err != nil {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("countboot: %s: %w", kernel, err)
	}
	code := []byte{
		0xb8, 0x40, 0x42, 0x0f, 0x00, // mov $1000000, %eax
		0xc3, // ret
	}
	for _, s := range syms {
		if s.name != pitCalibration {
			continue
		}
		for _, seg := range f.Progs {
			if seg.Type == elf.PT_LOAD && s.addr >= seg.Vaddr && s.addr+uint64(len(code)) <= seg.Vaddr+seg.Filesz {
				copy(data[seg.Off+s.addr-seg.Vaddr:], code)
				return os.WriteFile(path, data, 0o644)
			}
		}
	}
	return fmt.Errorf("countboot: %s and %s do not belong together: no %s", kernel, systemMap, pitCalibration)
}
