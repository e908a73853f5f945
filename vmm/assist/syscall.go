package assist

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/lucid-containers/lucid/kvm"
)

// How a SYSCALL of user code is finished, in order of time:
//
//  1. After any exit, AfterExit reads gate 14 of the guest's IDT. When it names
//     another handler than before, the address goes to gate.entry and all vCPUs
//     are kicked.
//  2. Before it enters the guest, each vCPU moves its breakpoint there.
//     Linux sets its last page-fault gate before it starts the other CPUs and
//     long before it runs user code, and every vCPU has exits of its own before
//     that: it restores the FPU state with XRSTOR.
//  3. A page fault hits the breakpoint. debug reads the exception frame and
//     either makes the state that SYSCALL should have made, or steps over the
//     first instruction of the handler.
//  4. After the first SYSCALL the address is known to be right, and AfterExit
//     stops looking.

// gate is the page-fault entry of the guest.
type gate struct {
	entry   atomic.Uint64 // address of the handler; 0: not known yet
	settled atomic.Bool   // a SYSCALL has come through entry
}

// PageFaultEntry returns the address of the guest's page-fault handler, 0 while
// it is not known.
func (vm *VM) PageFaultEntry() uint64 { return vm.gate.entry.Load() }

const (
	idtEntrySize = 16
	gatePresent  = 1 << 47
	gateType     = 0xf << 40
	gateIntr     = 0xe << 40 // interrupt gate
)

// AfterExit looks for the page-fault entry until it is certain. Call it after
// every exit that may have been in kernel code.
func (v *VCPU) AfterExit() error {
	if !v.vm.cfg.Needs.Syscall || v.vm.gate.settled.Load() {
		return nil
	}
	s, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	entry, ok := pageFaultEntry(space{mem: v.vm.cfg.Memory, s: &s})
	if !ok || v.vm.gate.entry.Swap(entry) == entry {
		return nil
	}
	v.vm.cfg.Log.Debug("guest page-fault entry", "address", entry)
	v.vm.cfg.KickAll()
	return nil
}

// pageFaultEntry reads gate 14. ok is false while there is no usable one: the
// table that Linux starts with leads to code that cannot be stepped over.
func pageFaultEntry(a space) (entry uint64, ok bool) {
	if a.s.EFER&eferLMA == 0 || uint64(a.s.IDT.Limit) < vectorPF*idtEntrySize+idtEntrySize-1 {
		return 0, false
	}
	var b [idtEntrySize]byte
	if a.read(a.s.IDT.Base+vectorPF*idtEntrySize, b[:]) != nil {
		return 0, false
	}
	lo, hi := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	if lo&gatePresent == 0 || lo&gateType != gateIntr {
		return 0, false
	}
	entry = lo&0xffff | lo>>48<<16 | hi<<32
	var code [maxInst]byte
	if entry == 0 || a.read(entry, code[:]) != nil {
		return 0, false
	}
	return entry, stepOver(code[:], new(kvm.Regs))
}

// BeforeEntry moves the breakpoint if the page-fault entry has moved. Call it
// on the vCPU's goroutine before it enters the guest after a kick.
func (v *VCPU) BeforeEntry() error {
	entry := v.vm.gate.entry.Load()
	if entry == v.armed {
		return nil
	}
	var d kvm.GuestDebug // none
	if entry != 0 {
		d.Control = kvm.GuestDebugEnable | kvm.GuestDebugUseHWBP
		d.DebugReg[0] = entry
		d.DebugReg[7] = 1<<10 | 1<<1 // the bit that is always one; G0, execution
	}
	if err := v.cpu.SetGuestDebug(&d); err != nil {
		return err
	}
	v.armed = entry
	return nil
}

// frame is what the CPU pushes for an exception with an error code.
type frame struct {
	code, rip, cs, rflags, rsp, ss uint64
}

// debug handles KVM_EXIT_DEBUG.
func (v *VCPU) debug(exit *kvm.DebugExit) error {
	regs, err := v.cpu.Regs()
	if err != nil {
		return err
	}
	// An execution breakpoint comes before the instruction, so RIP is the address;
	// what else the exit says differs between back-ends.
	if regs.RIP != v.armed || exit.Exception == vectorBP {
		return v.passDebug(exit)
	}
	sregs, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	a := space{mem: v.vm.cfg.Memory, s: &sregs}
	done, err := v.finishSyscall(a, &regs)
	if err != nil || done {
		return err
	}
	var code [maxInst]byte
	n := min(maxInst, pageSize-regs.RIP%pageSize)
	if a.read(regs.RIP, code[:n]) != nil || !stepOver(code[:n], &regs) {
		// The guest has changed its handler. Without the breakpoint it can go on,
		// until user code makes a SYSCALL.
		v.vm.gate.entry.CompareAndSwap(v.armed, 0)
		v.vm.gate.settled.Store(false)
		return v.BeforeEntry()
	}
	v.vm.stepped.Add(1)
	return v.cpu.SetRegs(&regs)
}

// finishSyscall does what SYSCALL left undone, if the page fault that entered
// the handler came from one. By then the CPU has cleared the flags of a mask, so
// the frame lacks some (IF among them) that R11 still has. But user code can also
// jump to the kernel's entry, with any RCX and R11, and the kernel gives R11 back
// with SYSRET: so only what a process may set anyway is taken from R11, the rest,
// IOPL above all, from the frame. IF is set: no process without IOPL can clear it,
// and Linux takes a page fault of user code without it for a bug.
func (v *VCPU) finishSyscall(a space, r *kvm.Regs) (bool, error) {
	var b [6 * 8]byte
	if a.read(r.RSP, b[:]) != nil {
		return false, nil
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	f := frame{word(0), word(1), word(2), word(3), word(4), word(5)}
	const fetchByUser = pfPresent | pfUser | pfFetch
	if f.code&fetchByUser != fetchByUser || f.cs&3 != 3 || a.s.EFER&eferSCE == 0 || a.s.CS.Selector&3 != 0 {
		return false, nil
	}
	lstar, err := v.cpu.MSR(kvm.MSRLSTAR)
	if err != nil {
		return false, err
	}
	if f.rip != lstar {
		return false, nil
	}
	star, err := v.cpu.MSR(kvm.MSRSTAR)
	if err != nil {
		return false, err
	}
	mask, err := v.cpu.MSR(kvm.MSRSyscallMask)
	if err != nil {
		return false, err
	}
	base := uint16(star>>32) &^ 3
	a.s.CS = kvm.Segment{Limit: 0xffffffff, Selector: base, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	a.s.SS = kvm.Segment{Limit: 0xffffffff, Selector: base + 8, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	if err := v.cpu.SetSregs(a.s); err != nil {
		return false, err
	}
	r.RIP, r.RSP = lstar, f.rsp
	r.R11 = r.R11&flagsUser | f.rflags&^(flagsUser|flagRF|flagVM) | flagIF | flagReserved
	r.RFLAGS = r.R11&^mask | flagReserved
	v.vm.syscalls.Add(1)
	v.vm.gate.settled.Store(true)
	return true, v.cpu.SetRegs(r)
}

// stepOver does the first instruction of a page-fault handler, if it is one of
// those that Linux has there.
func stepOver(code []byte, r *kvm.Regs) bool {
	in, err := decode(code)
	if err != nil {
		return false
	}
	switch {
	case in.opmap == map1 && in.op == 0x90: // nop
	case in.opmap == map0F && in.op == 0x1f && in.hasModRM: // nop of several bytes
	case in.opmap == map0F && in.op == 0x1e && in.rep == 0xf3 && in.mod == 3: // endbr64
	case in.opmap == map1 && in.op == 0xfc: // cld
		r.RFLAGS &^= flagDF
	case in.opmap == map0F && in.op == 0x01 && in.mod == 3 && in.reg&7 == 1 && in.rm&7 == 2: // clac
		r.RFLAGS &^= flagAC
	default:
		return false
	}
	r.RIP += uint64(in.n)
	return true
}

// passDebug gives the guest a debug exception that is its own, for example the
// single step of a debugger inside: while a breakpoint of ours is set, KVM
// reports all of them here.
func (v *VCPU) passDebug(exit *kvm.DebugExit) error {
	d, err := v.cpu.DebugRegs()
	if err != nil {
		return err
	}
	d.DR6 = exit.DR6
	if err := v.cpu.SetDebugRegs(&d); err != nil {
		return err
	}
	vector := uint8(vectorDB)
	if exit.Exception == vectorBP {
		vector = vectorBP
	}
	return inject(v.cpu, &fault{vector: vector})
}
