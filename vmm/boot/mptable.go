package boot

import (
	"encoding/binary"
	"fmt"
)

// MultiProcessor Specification 1.4, chapter 4. Linux reads this table when
// there is no ACPI, and finds it at the end of base memory.

// MaxVCPUs is how many vCPUs the table names at most; 37 would fit into its
// kilobyte.
const MaxVCPUs = 32

const (
	mpTableAddr  = lowRAMEnd // 0x9fc00, "the last kilobyte of system base memory"
	mpTableLimit = 0xa0000 - mpTableAddr

	mpPointerSize = 16
	mpHeaderSize  = 44

	mpEntryCPU    = 0
	mpEntryBus    = 1
	mpEntryIOAPIC = 2
	mpEntryIntr   = 3 // I/O interrupt assignment
	mpEntryLocal  = 4 // local interrupt assignment

	mpCPUEnabled = 1
	mpCPUBoot    = 2
	mpAPICVer    = 0x14 // integrated APIC
	mpIOAPICVer  = 0x11
	mpIntrINT    = 0
	mpIntrNMI    = 1
	mpIntrExtINT = 3

	lapicAddr  = 0xfee00000
	ioapicAddr = 0xfec00000

	// IOAPICPins is the number of interrupt lines of KVM's IOAPIC.
	IOAPICPins = 24
)

func mpTable(vcpus int) ([]byte, error) {
	if vcpus < 1 || vcpus > MaxVCPUs {
		return nil, fmt.Errorf("%d vCPUs, want 1 to %d", vcpus, MaxVCPUs)
	}
	entries, count := mpEntries(vcpus)
	p := make([]byte, mpPointerSize+mpHeaderSize, mpTableLimit)
	le := binary.LittleEndian

	ptr := p[:mpPointerSize]
	copy(ptr, "_MP_")
	le.PutUint32(ptr[4:], mpTableAddr+mpPointerSize)
	ptr[8] = 1 // length in 16-byte units
	ptr[9] = 4 // specification 1.4
	ptr[10] = checksum(ptr)

	p = append(p, entries...)
	head := p[mpPointerSize:]
	copy(head, "PCMP")
	le.PutUint16(head[4:], uint16(len(head)))
	head[6] = 4 // specification 1.4
	copy(head[8:], "LUCID   MICROVM     ")
	le.PutUint16(head[34:], uint16(count))
	le.PutUint32(head[36:], lapicAddr)
	head[7] = checksum(head)

	if len(p) > mpTableLimit {
		return nil, fmt.Errorf("MP table of %d bytes does not fit", len(p))
	}
	return p, nil
}

func mpEntries(vcpus int) (p []byte, count int) {
	add := func(entry ...byte) { p, count = append(p, entry...), count+1 }
	le := binary.LittleEndian
	for id := range vcpus {
		flags := byte(mpCPUEnabled)
		if id == 0 {
			flags |= mpCPUBoot
		}
		e := make([]byte, 20)
		copy(e, []byte{mpEntryCPU, byte(id), mpAPICVer, flags})
		le.PutUint32(e[4:], 0x600) // signature: family 6; Linux prints it and no more
		le.PutUint32(e[8:], 0x201) // features: FPU and APIC
		add(e...)
	}
	add(append([]byte{mpEntryBus, 0}, "ISA   "...)...)
	ioapic := byte(vcpus)
	add(le.AppendUint32([]byte{mpEntryIOAPIC, ioapic, mpIOAPICVer, 1}, ioapicAddr)...)
	// Bus ISA: edge triggered, active high, which is how an irqfd fires.
	for pin := range byte(IOAPICPins) {
		add(mpEntryIntr, mpIntrINT, 0, 0, 0, pin, ioapic, pin)
	}
	add(mpEntryLocal, mpIntrExtINT, 0, 0, 0, 0, 0, 0) // PIC → LINT0 of vCPU 0
	add(mpEntryLocal, mpIntrNMI, 0, 0, 0, 0, 0xff, 1) // NMI → LINT1 of all
	return p, count
}

// checksum returns the byte that makes the sum of p zero.
func checksum(p []byte) byte {
	var sum byte
	for _, b := range p {
		sum += b
	}
	return -sum
}
