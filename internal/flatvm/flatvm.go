// Package flatvm makes the smallest VM that runs code: one vCPU at CPL 0, in
// 32-bit protected mode without paging, as the guest kernel's entry is. What
// measures a KVM uses it.
//
// A VM is for one goroutine, locked to its thread as kvm.VCPU asks for. The
// smallest use:
//
//	vm, err := flatvm.New(sys, code)
//	err = vm.Enter(rounds) // ECX
//	exit, err := vm.CPU.Run()
package flatvm

import (
	"errors"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
)

const (
	memory   = 2 << 20 // bytes, from address 0
	gdtAt    = 0x1000
	codeAt   = 0x2000
	codeSel  = 0x08
	dataSel  = 0x10
	descSize = 8

	cr0PE, cr0ET   = 1 << 0, 1 << 4
	rflagsReserved = 1 << 1
)

// gdt has the null descriptor, flat code and flat data.
var gdt = []uint64{0, 0x00cf9b000000ffff, 0x00cf93000000ffff}

// VM is the machine with its code.
type VM struct {
	Machine *kvm.VM
	CPU     *kvm.VCPU
	mem     *guestmem.Memory
}

// New makes a VM with an interrupt controller and code in its memory. The error
// is KVM's.
func New(sys *kvm.System, code []byte) (_ *VM, err error) {
	vm := new(VM)
	defer func() {
		if err != nil {
			vm.Close()
		}
	}()
	if vm.mem, err = guestmem.Alloc(memory); err != nil {
		return nil, err
	}
	for i, d := range gdt {
		if err := vm.mem.Store64(gdtAt+descSize*uint64(i), d); err != nil {
			return nil, err
		}
	}
	if err := vm.mem.WriteAt(code, codeAt); err != nil {
		return nil, err
	}
	if vm.Machine, err = sys.CreateVM(); err != nil {
		return nil, err
	}
	// An identity map and a TSS are for Intel hosts without unrestricted guests.
	err = errors.Join(vm.Machine.SetTSSAddr(0xfffbd000), vm.Machine.CreateIRQChip(),
		vm.Machine.SetMemoryRegion(kvm.MemoryRegion{Host: vm.mem.Regions()[0].Host}))
	if err != nil {
		return nil, err
	}
	vm.CPU, err = vm.Machine.CreateVCPU(0)
	return vm, err
}

// Enter puts the vCPU at the beginning of the code with ECX set.
func (vm *VM) Enter(ecx uint64) error {
	s, err := vm.CPU.Sregs()
	if err != nil {
		return err
	}
	flat := func(selector uint16, typ uint8) kvm.Segment {
		return kvm.Segment{Limit: 0xffffffff, Selector: selector, Type: typ, Present: 1, DB: 1, S: 1, G: 1}
	}
	data := flat(dataSel, 3)
	s.CS = flat(codeSel, 11)
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.GDT = kvm.DTable{Base: gdtAt, Limit: uint16(descSize*len(gdt) - 1)}
	s.CR0, s.CR3, s.CR4, s.EFER = cr0PE|cr0ET, 0, 0, 0
	if err := vm.CPU.SetSregs(&s); err != nil {
		return err
	}
	return vm.CPU.SetRegs(&kvm.Regs{RIP: codeAt, RCX: ecx, RFLAGS: rflagsReserved})
}

// Close takes it away.
func (vm *VM) Close() {
	if vm.CPU != nil {
		_ = vm.CPU.Close()
	}
	if vm.Machine != nil {
		_ = vm.Machine.Close()
	}
	if vm.mem != nil {
		_ = vm.mem.Close()
	}
}
