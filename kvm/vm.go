package kvm

import (
	"os"

	"golang.org/x/sys/unix"
)

// VM is one virtual machine.
type VM struct {
	fd  int
	sys *System
}

// Close closes the VM. The kernel frees it when the last vCPU is closed too.
func (vm *VM) Close() error { return os.NewSyscallError("close", unix.Close(vm.fd)) }

// CheckExtension is System.CheckExtension as this VM sees it.
func (vm *VM) CheckExtension(c Cap) int {
	n, err := ioctl(vm.fd, "KVM_CHECK_EXTENSION", kvmCheckExtension, uintptr(c))
	if err != nil {
		return 0
	}
	return n
}

// EnableCap is KVM_ENABLE_CAP.
func (vm *VM) EnableCap(c Cap, args ...uint64) error {
	arg := &enableCap{Cap: uint32(c)}
	copy(arg.Args[:], args)
	_, err := ioctlPtr(vm.fd, "KVM_ENABLE_CAP", kvmEnableCap, arg)
	return err
}

// SetTSSAddr gives KVM three pages of guest-physical space that no RAM covers;
// Intel needs them for real mode.
func (vm *VM) SetTSSAddr(addr uint32) error {
	_, err := ioctl(vm.fd, "KVM_SET_TSS_ADDR", kvmSetTSSAddr, uintptr(addr))
	return err
}

// SetIdentityMapAddr gives KVM one more such page. Call it before the first
// vCPU is made.
func (vm *VM) SetIdentityMapAddr(addr uint64) error {
	_, err := ioctlPtr(vm.fd, "KVM_SET_IDENTITY_MAP_ADDR", kvmSetIdentityMapAddr, &addr)
	return err
}

// CreateIRQChip makes two PICs, an IOAPIC and a local APIC per vCPU, all in the
// kernel. Call it before the first vCPU is made.
func (vm *VM) CreateIRQChip() error {
	_, err := ioctl(vm.fd, "KVM_CREATE_IRQCHIP", kvmCreateIRQChip, 0)
	return err
}

// CreatePIT2 makes an i8254 in the kernel, with a dummy for the speaker port.
func (vm *VM) CreatePIT2() error {
	_, err := ioctlPtr(vm.fd, "KVM_CREATE_PIT2", kvmCreatePIT2, &pitConfig{Flags: pitSpeakerDummy})
	return err
}

// MemoryRegion is one slot of guest RAM.
type MemoryRegion struct {
	Slot  uint32
	Flags uint32 // MemReadonly, MemLogDirtyPages
	Guest uint64 // guest-physical base
	Host  []byte // must stay mapped for as long as the VM; empty removes the slot
}

// SetMemoryRegion adds, changes or removes a slot.
func (vm *VM) SetMemoryRegion(r MemoryRegion) error {
	_, err := ioctlPtr(vm.fd, "KVM_SET_USER_MEMORY_REGION", kvmSetUserMemoryRegion, &userspaceMemoryRegion{
		Slot:          r.Slot,
		Flags:         r.Flags,
		GuestPhysAddr: r.Guest,
		MemorySize:    uint64(len(r.Host)),
		UserspaceAddr: hostAddr(r.Host),
	})
	return err
}

// IRQFD makes a signal of the eventfd raise the interrupt line gsi for a
// moment, as an edge.
func (vm *VM) IRQFD(eventfd int, gsi uint32) error {
	_, err := ioctlPtr(vm.fd, "KVM_IRQFD", kvmIRQFD, &irqFD{FD: uint32(eventfd), GSI: gsi})
	return err
}

// RemoveIRQFD undoes IRQFD.
func (vm *VM) RemoveIRQFD(eventfd int, gsi uint32) error {
	_, err := ioctlPtr(vm.fd, "KVM_IRQFD", kvmIRQFD, &irqFD{FD: uint32(eventfd), GSI: gsi, Flags: irqFDFlagDeassign})
	return err
}

// IOEvent is a guest write that signals an eventfd instead of leaving KVM_RUN.
type IOEvent struct {
	Addr  uint64
	Len   uint32 // 1, 2, 4 or 8; 0 matches any length and no value
	PIO   bool
	Match bool // only when the value is Value
	Value uint64
	FD    int
}

// IOEventFD registers e.
func (vm *VM) IOEventFD(e IOEvent) error { return vm.ioEventFD(e, 0) }

// RemoveIOEventFD undoes IOEventFD of the same e.
func (vm *VM) RemoveIOEventFD(e IOEvent) error { return vm.ioEventFD(e, ioEventFDFlagDeassign) }

func (vm *VM) ioEventFD(e IOEvent, flags uint32) error {
	if e.PIO {
		flags |= ioEventFDFlagPIO
	}
	if e.Match {
		flags |= ioEventFDFlagDatamatch
	}
	_, err := ioctlPtr(vm.fd, "KVM_IOEVENTFD", kvmIOEventFD, &ioEventFD{
		Datamatch: e.Value, Addr: e.Addr, Len: e.Len, FD: int32(e.FD), Flags: flags,
	})
	return err
}

// Clock reads the guest's kvm-clock.
func (vm *VM) Clock() (Clock, error) {
	var c Clock
	_, err := ioctlPtr(vm.fd, "KVM_GET_CLOCK", kvmGetClock, &c)
	return c, err
}

// SetClock sets the guest's kvm-clock. Only ClockRealtime may be set in Flags.
func (vm *VM) SetClock(c Clock) error {
	_, err := ioctlPtr(vm.fd, "KVM_SET_CLOCK", kvmSetClock, &c)
	return err
}

// IRQChip reads one of the interrupt controllers (IRQChipIOAPIC, ...).
func (vm *VM) IRQChip(id uint32) (IRQChip, error) {
	c := IRQChip{ChipID: id}
	_, err := ioctlPtr(vm.fd, "KVM_GET_IRQCHIP", kvmGetIRQChip, &c)
	return c, err
}

// SetIRQChip sets the interrupt controller that c.ChipID names.
func (vm *VM) SetIRQChip(c IRQChip) error {
	_, err := ioctlPtr(vm.fd, "KVM_SET_IRQCHIP", kvmSetIRQChip, &c)
	return err
}

// CreateVCPU makes a vCPU. With interrupt controllers in the kernel, vCPU 0
// runs at once and the others wait for INIT and SIPI.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(vm.fd, "KVM_CREATE_VCPU", kvmCreateVCPU, uintptr(id))
	if err != nil {
		return nil, err
	}
	page, err := unix.Mmap(fd, 0, vm.sys.runSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("mmap of the run page", err)
	}
	return &VCPU{fd: fd, id: id, page: page}, nil
}
