package kvm

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// VCPU is one virtual CPU. See the package comment for which goroutine may
// call what.
type VCPU struct {
	fd   int
	id   int
	page []byte // struct kvm_run and what follows it, shared with the kernel

	mu     sync.Mutex
	tid    int  // thread in the loop; 0 when none. Protected by mu.
	closed bool // page is gone. Protected by mu.
}

// ID returns the number given to CreateVCPU, which is also the APIC id.
func (c *VCPU) ID() int { return c.id }

// Close frees the vCPU. Preconditions: nobody is in Run. A Kick that comes later
// does nothing.
func (c *VCPU) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	c.closed = true
	err := unix.Munmap(c.page)
	return errors.Join(os.NewSyscallError("munmap", err), os.NewSyscallError("close", unix.Close(c.fd)))
}

// Attach makes the calling thread the one that Kick signals. Preconditions: the
// goroutine is locked to its thread and stays so until Detach.
func (c *VCPU) Attach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tid = unix.Gettid()
}

// Detach undoes Attach.
func (c *VCPU) Detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tid = 0
}

// Kick makes the Run that is under way, or the next one, return ExitIntr. It
// may be called from any goroutine at any time.
//
// The flag alone is too late for a thread that is in the guest; the signal
// alone is lost on a thread that is not yet there. The Go runtime handles
// SIGURG on every thread and takes it for one of its own.
func (c *VCPU) Kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.setImmediateExit(true)
	if c.tid != 0 {
		// ESRCH cannot happen, the thread is locked and holds on until Detach.
		_ = unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG)
	}
}

// ClearKick makes Run enter the guest again after a Kick. The loop clears first
// and looks at its state second, so that no request is lost.
func (c *VCPU) ClearKick() { c.setImmediateExit(false) }

// ArmKick makes the next Run finish the I/O of the last exit and return
// ExitIntr without entering the guest (api.rst, "immediate_exit").
func (c *VCPU) ArmKick() { c.setImmediateExit(true) }

// Regs reads the general registers.
func (c *VCPU) Regs() (Regs, error) {
	var r Regs
	_, err := ioctlPtr(c.fd, "KVM_GET_REGS", kvmGetRegs, &r)
	return r, err
}

// SetRegs writes the general registers. KVM drops a pending exception.
func (c *VCPU) SetRegs(r *Regs) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_REGS", kvmSetRegs, r)
	return err
}

// Sregs reads the segment, table and control registers.
func (c *VCPU) Sregs() (Sregs, error) {
	var s Sregs
	_, err := ioctlPtr(c.fd, "KVM_GET_SREGS", kvmGetSregs, &s)
	return s, err
}

// SetSregs writes the segment, table and control registers.
func (c *VCPU) SetSregs(s *Sregs) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_SREGS", kvmSetSregs, s)
	return err
}

// PreFault maps size bytes of guest memory at addr, both multiples of a page, as if the
// guest had read them: it will not exit there. A page that the host's process may write to at
// once is mapped for writing. Preconditions: CapPreFaultMemory, and the memory is in a slot; the
// control registers are those that the guest begins with.
func (c *VCPU) PreFault(addr, size uint64) error {
	arg := preFaultMemory{GPA: addr, Size: size}
	for left := arg.Size; left > 0; left = arg.Size { // KVM counts it down, and may stop early
		if _, err := ioctlPtr(c.fd, "KVM_PRE_FAULT_MEMORY", kvmPreFaultMemory, &arg); err != nil {
			return err
		}
		if arg.Size >= left {
			return fmt.Errorf("KVM_PRE_FAULT_MEMORY: no progress at %#x", arg.GPA)
		}
	}
	return nil
}

// Xsave reads the FPU state into x. States larger than 4 KiB (AMX) do not fit
// and are refused by KVM.
func (c *VCPU) Xsave(x *Xsave) error {
	_, err := ioctlPtr(c.fd, "KVM_GET_XSAVE", kvmGetXsave, x)
	return err
}

// SetXsave writes the FPU state.
func (c *VCPU) SetXsave(x *Xsave) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_XSAVE", kvmSetXsave, x)
	return err
}

// XCRS reads the extended control registers.
func (c *VCPU) XCRS() (XCRS, error) {
	var x XCRS
	_, err := ioctlPtr(c.fd, "KVM_GET_XCRS", kvmGetXCRS, &x)
	return x, err
}

// SetXCRS writes the extended control registers.
func (c *VCPU) SetXCRS(x *XCRS) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_XCRS", kvmSetXCRS, x)
	return err
}

// LAPIC reads the local APIC.
func (c *VCPU) LAPIC() (LAPIC, error) {
	var l LAPIC
	_, err := ioctlPtr(c.fd, "KVM_GET_LAPIC", kvmGetLAPIC, &l)
	return l, err
}

// SetLAPIC writes the local APIC.
func (c *VCPU) SetLAPIC(l *LAPIC) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_LAPIC", kvmSetLAPIC, l)
	return err
}

// MPState reads the multiprocessing state (MPStateRunnable, ...).
func (c *VCPU) MPState() (MPState, error) {
	var m MPState
	_, err := ioctlPtr(c.fd, "KVM_GET_MP_STATE", kvmGetMPState, &m)
	return m, err
}

// SetMPState writes the multiprocessing state.
func (c *VCPU) SetMPState(m MPState) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_MP_STATE", kvmSetMPState, &m)
	return err
}

// Events reads pending and injected exceptions, interrupts and NMIs.
func (c *VCPU) Events() (VCPUEvents, error) {
	var e VCPUEvents
	_, err := ioctlPtr(c.fd, "KVM_GET_VCPU_EVENTS", kvmGetVCPUEvents, &e)
	return e, err
}

// SetEvents writes them.
func (c *VCPU) SetEvents(e *VCPUEvents) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_VCPU_EVENTS", kvmSetVCPUEvents, e)
	return err
}

// DebugRegs reads the guest's debug registers.
func (c *VCPU) DebugRegs() (DebugRegs, error) {
	var d DebugRegs
	_, err := ioctlPtr(c.fd, "KVM_GET_DEBUGREGS", kvmGetDebugRegs, &d)
	return d, err
}

// SetDebugRegs writes the guest's debug registers.
func (c *VCPU) SetDebugRegs(d *DebugRegs) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_DEBUGREGS", kvmSetDebugRegs, d)
	return err
}

// SetGuestDebug makes debug events of the guest leave Run as ExitDebug.
func (c *VCPU) SetGuestDebug(d *GuestDebug) error {
	_, err := ioctlPtr(c.fd, "KVM_SET_GUEST_DEBUG", kvmSetGuestDebug, d)
	return err
}

// Translate asks KVM for the physical address of a guest-linear one. It checks
// no permission: Writeable and Usermode say nothing (api.rst).
func (c *VCPU) Translate(linear uint64) (phys uint64, ok bool, err error) {
	t := Translation{LinearAddress: linear}
	_, err = ioctlPtr(c.fd, "KVM_TRANSLATE", kvmTranslate, &t)
	return t.PhysicalAddress, t.Valid != 0, err
}

// SetCPUID gives the vCPU its CPUID table (KVM_SET_CPUID2).
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUIDEntries {
		return errors.New("KVM_SET_CPUID2: too many entries")
	}
	arg := &cpuid2{Nent: uint32(len(entries))}
	copy(arg.Entries[:], entries)
	_, err := ioctlPtr(c.fd, "KVM_SET_CPUID2", kvmSetCPUID2, arg)
	return err
}

// CPUID reads the CPUID table back (KVM_GET_CPUID2).
func (c *VCPU) CPUID() ([]CPUIDEntry, error) {
	arg := &cpuid2{Nent: maxCPUIDEntries}
	if _, err := ioctlPtr(c.fd, "KVM_GET_CPUID2", kvmGetCPUID2, arg); err != nil {
		return nil, err
	}
	// Some kernels (6.1) leave nent as it was: the rest is zero then.
	n := int(min(arg.Nent, maxCPUIDEntries))
	for n > 0 && arg.Entries[n-1] == (CPUIDEntry{}) {
		n--
	}
	return arg.Entries[:n], nil
}

// TSCKHz reads the guest's TSC frequency.
func (c *VCPU) TSCKHz() (int, error) { return ioctl(c.fd, "KVM_GET_TSC_KHZ", kvmGetTSCKHz, 0) }

// SetTSCKHz sets the guest's TSC frequency.
func (c *VCPU) SetTSCKHz(khz int) error {
	_, err := ioctl(c.fd, "KVM_SET_TSC_KHZ", kvmSetTSCKHz, uintptr(khz))
	return err
}

// ClockCtrl tells the guest that its clock stood still (KVM_KVMCLOCK_CTRL).
func (c *VCPU) ClockCtrl() error {
	_, err := ioctl(c.fd, "KVM_KVMCLOCK_CTRL", kvmKVMClockCtrl, 0)
	return err
}
