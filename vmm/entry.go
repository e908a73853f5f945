package vmm

import (
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// Register bits (Intel SDM volume 3).
const (
	cr0PE          = 1 << 0
	cr0ET          = 1 << 4
	rflagsReserved = 1 << 1

	segCode = 0xb // execute, read, accessed
	segData = 0x3 // read, write, accessed
	segTSS  = 0xb // 32-bit TSS, busy
)

// setEntry puts a vCPU into the state that the PVH ABI asks for
// (docs/misc/pvh.pandoc): 32-bit protected mode, no paging, flat segments,
// EBX = start_info.
func setEntry(cpu *kvm.VCPU, e boot.Entry) error {
	s, err := cpu.Sregs()
	if err != nil {
		return err
	}
	flat := func(selector uint16, typ uint8) kvm.Segment {
		return kvm.Segment{Limit: 0xffffffff, Selector: selector, Type: typ, Present: 1, DB: 1, S: 1, G: 1}
	}
	data := flat(boot.SelectorData, segData)
	s.CS = flat(boot.SelectorCode, segCode)
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = kvm.Segment{Limit: 0x67, Selector: boot.SelectorTSS, Type: segTSS, Present: 1}
	s.GDT = kvm.DTable{Base: uint64(e.GDT), Limit: boot.GDTLimit}
	s.CR0, s.CR3, s.CR4, s.EFER = cr0PE|cr0ET, 0, 0, 0
	if err := cpu.SetSregs(&s); err != nil {
		return err
	}
	return cpu.SetRegs(&kvm.Regs{
		RIP: uint64(e.RIP), RBX: uint64(e.StartInfo), RFLAGS: rflagsReserved,
	})
}
