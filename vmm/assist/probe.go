package assist

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
)

// The probe is a guest of two programs. At CPL 0: one POPCNT and a port write.
// At CPL 3: one SYSCALL, whose handler writes to another port. Every exception
// writes its vector to a third port. What comes out first is the answer.

// Places in the probe's memory. User code runs at its physical address; the
// kernel sees all of it again at probeKernel.
const (
	probeSize    = 2 << 20
	probePML4    = 0x10000
	probePDPTLow = 0x11000
	probePDLow   = 0x12000
	probePDPTTop = 0x13000
	probePDTop   = 0x14000
	probeGDT     = 0x20000
	probeTSS     = 0x21000
	probeIDT     = 0x22000
	probeStack   = 0x30000 // top of the kernel's
	probeKCode   = 0x40000
	probeHandler = 0x41000 // of SYSCALL
	probeVectors = 0x42000 // 16 bytes per vector
	probeUCode   = 0x100000
	probeUStack  = 0x110000
	probeKernel  = 0xffffffff80000000

	probePortDone    = 0x80 // the CPL 0 program
	probePortFault   = 0x90
	probePortSyscall = 0x91

	probeCR0  = 0x80050033 // PG, AM, WP, NE, ET, MP, PE
	probeCR4  = 0x620      // OSXMMEXCPT, OSFXSR, PAE
	probeEFER = 0xd01      // NXE, LMA, LME, SCE

	probeKCS = 0x10 // selectors
	probeUCS = 0x33
	probeUDS = 0x2b
	probeTR  = 0x40
)

// probeVM is a VM of one vCPU with the programs in its memory.
type probeVM struct {
	mem    *guestmem.Memory
	vm     *kvm.VM
	cpu    *kvm.VCPU
	leaves []kvm.CPUIDEntry
}

func newProbeVM(sys *kvm.System) (p *probeVM, err error) {
	p = &probeVM{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.mem, err = guestmem.Alloc(probeSize); err != nil {
		return nil, err
	}
	if p.vm, err = sys.CreateVM(); err != nil {
		return nil, err
	}
	if err := errors.Join(p.vm.SetTSSAddr(0xfffbd000), p.vm.CreateIRQChip()); err != nil {
		return nil, err
	}
	// Without this capability an emulation failure comes out all the same, only
	// the guest cannot go on.
	_ = p.vm.EnableCap(kvm.CapExitOnEmulationFailure, 1)
	if err := p.vm.SetMemoryRegion(kvm.MemoryRegion{Host: p.mem.Regions()[0].Host}); err != nil {
		return nil, err
	}
	if p.cpu, err = p.vm.CreateVCPU(0); err != nil {
		return nil, err
	}
	if p.leaves, err = sys.SupportedCPUID(); err != nil {
		return nil, err
	}
	if err := p.cpu.SetCPUID(p.leaves); err != nil {
		return nil, err
	}
	return p, probeMemory(p.mem)
}

func (p *probeVM) close() {
	if p.cpu != nil {
		_ = p.cpu.Close()
	}
	if p.vm != nil {
		_ = p.vm.Close()
	}
	if p.mem != nil {
		_ = p.mem.Close()
	}
}

// Probe runs the two programs in a VM of their own.
func Probe(sys *kvm.System) (n Needs, err error) {
	p, err := newProbeVM(sys)
	if err != nil {
		return Needs{}, err
	}
	defer p.close()
	if n.Emulation, err = probeEmulation(p.cpu); err != nil {
		return Needs{}, err
	}
	n.Syscall, err = probeSyscall(p.cpu)
	return n, err
}

// probeMemory fills in page tables, descriptor tables and code.
func probeMemory(mem *guestmem.Memory) error {
	const user, kernel = 0x7, 0x3 // present, writable, and user or not
	big := uint64(0x80)           // a 2 MiB page at physical 0
	tss := uint64(probeKernel + probeTSS)
	words := map[uint64]uint64{
		probePML4:              probePDPTLow | user,
		probePML4 + 511*8:      probePDPTTop | kernel,
		probePDPTLow:           probePDLow | user,
		probePDPTTop + 510*8:   probePDTop | kernel,
		probePDLow:             big | user,
		probePDTop:             big | kernel,
		probeGDT + 0x10:        0x00af9b000000ffff, // kernel code
		probeGDT + 0x18:        0x00cf93000000ffff, // kernel data
		probeGDT + 0x20:        0x00cffb000000ffff, // user code, 32 bits
		probeGDT + 0x28:        0x00cff3000000ffff, // user data
		probeGDT + 0x30:        0x00affb000000ffff, // user code
		probeGDT + probeTR:     0x0000890000000067 | tss&0xffffff<<16 | tss>>24&0xff<<56,
		probeGDT + probeTR + 8: tss >> 32,
	}
	for addr, v := range words {
		if err := mem.Store64(addr, v); err != nil {
			return err
		}
	}
	code := map[uint64][]byte{
		probeTSS + 4: binary.LittleEndian.AppendUint64(nil, probeKernel+probeStack), // RSP0
		// popcnt rax, rbx; out 0x80, al; hlt
		probeKCode: {0xf3, 0x48, 0x0f, 0xb8, 0xc3, 0xe6, probePortDone, 0xf4},
		// out 0x91, al; hlt
		probeHandler: {0xe6, probePortSyscall, 0xf4},
		// syscall
		probeUCode: {0x0f, 0x05},
	}
	for vector := range uint64(32) {
		at := probeVectors + 16*vector
		target := probeKernel + at
		// nop; mov al, vector; out 0x90, al; hlt
		code[at] = []byte{0x90, 0xb0, byte(vector), 0xe6, probePortFault, 0xf4}
		low := target&0xffff | probeKCS<<16 | 0x8e<<40 | target>>16&0xffff<<48
		gate := binary.LittleEndian.AppendUint64(nil, low)
		code[probeIDT+16*vector] = binary.LittleEndian.AppendUint64(gate, target>>32)
	}
	for addr, p := range code {
		if err := mem.WriteAt(p, addr); err != nil {
			return err
		}
	}
	return nil
}

// probeStart sets all registers for one of the programs.
func probeStart(cpu *kvm.VCPU, user bool) error {
	// Let KVM finish the port write of the program before.
	cpu.ArmKick()
	if _, err := cpu.Run(); err != nil {
		return err
	}
	cpu.ClearKick()
	s, err := cpu.Sregs()
	if err != nil {
		return err
	}
	cs := kvm.Segment{Limit: 0xffffffff, Selector: probeKCS, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	ds := kvm.Segment{Limit: 0xffffffff, Selector: probeKCS + 8, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	regs := kvm.Regs{
		RIP: probeKernel + probeKCode, RSP: probeKernel + probeStack, RBX: 0xff00ff, RFLAGS: flagReserved,
	}
	if user {
		cs.Selector, cs.DPL, ds.Selector, ds.DPL = probeUCS, 3, probeUDS, 3
		regs = kvm.Regs{RIP: probeUCode, RSP: probeUStack, RFLAGS: flagReserved}
	}
	s.CS = cs
	s.DS, s.ES, s.FS, s.GS, s.SS = ds, ds, ds, ds, ds
	s.TR = kvm.Segment{Base: probeKernel + probeTSS, Limit: 0x67, Selector: probeTR, Type: 11, Present: 1}
	s.GDT = kvm.DTable{Base: probeKernel + probeGDT, Limit: 0x7f}
	s.IDT = kvm.DTable{Base: probeKernel + probeIDT, Limit: 32*16 - 1}
	s.CR0, s.CR3, s.CR4, s.EFER = probeCR0, probePML4, probeCR4, probeEFER
	if err := cpu.SetSregs(&s); err != nil {
		return err
	}
	err = cpu.SetMSRs([]kvm.MSR{
		{Index: kvm.MSRSTAR, Data: 0x23<<48 | probeKCS<<32},
		{Index: kvm.MSRLSTAR, Data: probeKernel + probeHandler},
		{Index: kvm.MSRSyscallMask, Data: 0x257fd5},
	})
	if err != nil {
		return err
	}
	return cpu.SetRegs(&regs)
}

func probeEmulation(cpu *kvm.VCPU) (missing bool, err error) {
	if err := probeStart(cpu, false); err != nil {
		return false, err
	}
	exit, err := probeRun(cpu)
	switch {
	case err != nil:
		return false, err
	case exit.Reason == kvm.ExitIO && exit.IO.Port == probePortDone:
		return false, nil
	case exit.Reason == kvm.ExitInternalError && exit.Internal.Suberror == kvm.InternalErrorEmulation:
		return true, nil
	}
	return false, fmt.Errorf("kernel-mode probe ended with %s", probeOutcome(exit))
}

func probeSyscall(cpu *kvm.VCPU) (missing bool, err error) {
	if err := probeStart(cpu, true); err != nil {
		return false, err
	}
	exit, err := probeRun(cpu)
	switch {
	case err != nil:
		return false, err
	case exit.Reason == kvm.ExitIO && exit.IO.Port == probePortSyscall:
		return false, nil
	case exit.Reason == kvm.ExitIO && exit.IO.Port == probePortFault && exit.IO.Data[0] == vectorPF:
		return true, nil
	}
	return false, fmt.Errorf("user-mode probe ended with %s", probeOutcome(exit))
}

func probeOutcome(exit kvm.Exit) string {
	if exit.Reason == kvm.ExitIO {
		return fmt.Sprintf("% x written to port %#x", exit.IO.Data, exit.IO.Port)
	}
	return fmt.Sprintf("exit %s, suberror %d", exit.Reason, exit.Internal.Suberror)
}

// probeRun runs until something happens. The programs are a few instructions
// long, so signals (the Go runtime sends some) can disturb only so often.
func probeRun(cpu *kvm.VCPU) (kvm.Exit, error) {
	for range 1000 {
		exit, err := cpu.Run()
		if err != nil || exit.Reason != kvm.ExitIntr {
			return exit, err
		}
	}
	return kvm.Exit{}, errors.New("the probe does not end")
}
