package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What a saved VM consists of beyond what running one needs (api.rst).

// StateCaps are the capabilities without which a VM cannot be saved and brought
// back, with what each is for.
var StateCaps = []Requirement{
	{CapMPState, "KVM_CAP_MP_STATE", "run state of a vCPU", true},
	{CapVCPUEvents, "KVM_CAP_VCPU_EVENTS", "pending exceptions and interrupts", true},
	{CapDebugRegs, "KVM_CAP_DEBUGREGS", "debug registers", true},
	{CapXsave, "KVM_CAP_XSAVE", "FPU and vector registers", true},
	{CapXCRS, "KVM_CAP_XCRS", "XCR0", true},
	{CapIRQChip, "KVM_CAP_IRQCHIP", "interrupt controllers", true},
	{CapAdjustClock, "KVM_CAP_ADJUST_CLOCK", "the guest's clock", true},
}

// CheckState says whether this KVM can save and restore a VM.
func (s *System) CheckState() error {
	for _, r := range StateCaps {
		if s.CheckExtension(r.Cap) == 0 {
			return fmt.Errorf("this KVM cannot save a VM: it lacks %s (%s)", r.Name, r.Why)
		}
	}
	return nil
}

// xsaveMin is the size of struct kvm_xsave without its extra part.
const xsaveMin = 4096

// XsaveSize is how many bytes the FPU state of a vCPU has in this VM: 4096, or
// more where the host has AMX and the guest may use it.
func (vm *VM) XsaveSize() int { return max(xsaveMin, vm.CheckExtension(CapXsave2)) }

// FPU reads the FPU state into p, which has XsaveSize bytes.
func (c *VCPU) FPU(p []byte) error {
	if len(p) < xsaveMin {
		return errors.New("KVM_GET_XSAVE2: buffer too small")
	}
	if len(p) == xsaveMin { // the same structure, and also known before Linux 5.17
		return c.moveBytes("KVM_GET_XSAVE", kvmGetXsave, p)
	}
	return c.moveBytes("KVM_GET_XSAVE2", kvmGetXsave2, p)
}

// SetFPU writes the FPU state. Preconditions: p has XsaveSize bytes of this
// VM, which is what KVM reads.
func (c *VCPU) SetFPU(p []byte) error {
	if len(p) < xsaveMin {
		return errors.New("KVM_SET_XSAVE: buffer too small")
	}
	return c.moveBytes("KVM_SET_XSAVE", kvmSetXsave, p)
}

// AvailableMSRs reads those of the MSRs that this vCPU has. KVM's list of MSRs
// is for the host, and some of it depends on the guest's CPUID.
func (c *VCPU) AvailableMSRs(indices []uint32) ([]MSR, error) {
	var out []MSR
	rest := make([]MSR, len(indices))
	for i, index := range indices {
		rest[i].Index = index
	}
	for len(rest) > 0 {
		part := rest[:min(len(rest), maxMSRs)]
		n, err := c.moveSomeMSRs("KVM_GET_MSRS", kvmGetMSRs, part)
		if err != nil {
			return nil, err
		}
		out = append(out, part[:n]...)
		rest = rest[n:]
		if n < len(part) {
			rest = rest[1:] // the one that KVM refused
		}
	}
	return out, nil
}

// RestoreMSRs writes the entries in order. One that KVM refuses and that has its
// value already is passed over: some can be read only, or written only by
// guests of another kind.
func (c *VCPU) RestoreMSRs(entries []MSR) error {
	for len(entries) > 0 {
		part := entries[:min(len(entries), maxMSRs)]
		n, err := c.moveSomeMSRs("KVM_SET_MSRS", kvmSetMSRs, part)
		if err != nil {
			return err
		}
		if n < len(part) {
			now, err := c.MSR(part[n].Index)
			if err != nil || now != part[n].Data {
				return fmt.Errorf("KVM_SET_MSRS: MSR %#x refused (value %#x)", part[n].Index, part[n].Data)
			}
			n++
		}
		entries = entries[n:]
	}
	return nil
}

// ClockStood tells the guest that its clock stood still, if it uses kvmclock.
func (c *VCPU) ClockStood() error {
	err := c.ClockCtrl()
	if errors.Is(err, unix.EINVAL) {
		return nil // it does not
	}
	return err
}
