package kvm

import "fmt"

// MSR numbers that lucid names (arch/x86/include/asm/msr-index.h).
const (
	MSRTSC          = 0x10       // MSR_IA32_TSC
	MSRTSCDeadline  = 0x6e0      // MSR_IA32_TSC_DEADLINE
	MSREFER         = 0xc0000080 // MSR_EFER
	MSRSTAR         = 0xc0000081 // MSR_STAR
	MSRLSTAR        = 0xc0000082 // MSR_LSTAR
	MSRSyscallMask  = 0xc0000084 // MSR_SYSCALL_MASK
	MSRFSBase       = 0xc0000100 // MSR_FS_BASE
	MSRGSBase       = 0xc0000101 // MSR_GS_BASE
	MSRKernelGSBase = 0xc0000102 // MSR_KERNEL_GS_BASE
	MSRTSCAux       = 0xc0000103 // MSR_TSC_AUX
)

// MSRs fills in the Data of each entry. An MSR that KVM refuses is an error
// which names it.
func (c *VCPU) MSRs(entries []MSR) error {
	return c.moveMSRs("KVM_GET_MSRS", kvmGetMSRs, entries)
}

// SetMSRs writes the entries in order.
func (c *VCPU) SetMSRs(entries []MSR) error {
	return c.moveMSRs("KVM_SET_MSRS", kvmSetMSRs, entries)
}

func (c *VCPU) moveMSRs(name string, request uintptr, entries []MSR) error {
	for len(entries) > 0 {
		part := entries[:min(len(entries), maxMSRs)]
		n, err := c.moveSomeMSRs(name, request, part)
		if err != nil {
			return err
		}
		if n < len(part) {
			return fmt.Errorf("%s: MSR %#x refused (value %#x)", name, part[n].Index, part[n].Data)
		}
		entries = entries[len(part):]
	}
	return nil
}

// moveSomeMSRs moves up to maxMSRs entries and returns how many KVM did.
func (c *VCPU) moveSomeMSRs(name string, request uintptr, part []MSR) (int, error) {
	arg := &msrs{NMSRs: uint32(len(part))}
	copy(arg.Entries[:], part)
	n, err := ioctlPtr(c.fd, name, request, arg)
	if err != nil {
		return 0, err
	}
	copy(part, arg.Entries[:len(part)])
	return min(n, len(part)), nil
}

// MSR reads one MSR.
func (c *VCPU) MSR(index uint32) (uint64, error) {
	e := []MSR{{Index: index}}
	err := c.MSRs(e)
	return e[0].Data, err
}

// SetMSR writes one MSR.
func (c *VCPU) SetMSR(index uint32, v uint64) error {
	return c.SetMSRs([]MSR{{Index: index, Data: v}})
}
