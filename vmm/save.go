package vmm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/lucid-containers/lucid/kvm"
)

// How a vCPU is saved, and why in this order:
//
//	MP_STATE      first: reading it makes KVM act on a pending INIT or SIPI
//	REGS, SREGS, XSAVE2, XCRS, DEBUGREGS, LAPIC, TSC_KHZ
//	MSRs          after the LAPIC, as they are restored
//	VCPU_EVENTS   last: reading the others can still move an exception
//
// And restored: CPUID, TSC_KHZ, MP_STATE, REGS, SREGS (APIC base), XSAVE, XCRS,
// DEBUGREGS, LAPIC (needs the APIC base), MSRs (TSC_DEADLINE needs the LAPIC's
// mode and the TSC), VCPU_EVENTS (SET_REGS drops an exception), KVMCLOCK_CTRL.
// The interrupt controllers and the clock of the VM come before the vCPUs.

// Save returns the state of the VM. Preconditions: Pause has returned. The VM can
// go on afterwards.
func (vm *VM) Save() (*State, error) {
	s, err := vm.save()
	if err != nil {
		return nil, fmt.Errorf("vmm: save: %w", err)
	}
	return s, nil
}

func (vm *VM) save() (*State, error) {
	vm.mu.Lock()
	still := vm.goal.Load() == goalPause && vm.parked == vm.live && vm.live == len(vm.vcpus)
	vm.mu.Unlock()
	if !still {
		return nil, errors.New("the VM is not paused")
	}
	if err := vm.sys.CheckState(); err != nil {
		return nil, err
	}
	indices, err := vm.sys.MSRIndexList()
	if err != nil {
		return nil, err
	}
	s := &State{VCPUs: make([]VCPUState, len(vm.vcpus))}
	for i, v := range vm.vcpus {
		if err := saveVCPU(v.cpu, &s.VCPUs[i], indices, vm.vm.XsaveSize()); err != nil {
			return nil, fmt.Errorf("vCPU %d: %w", i, err)
		}
		if vm.sys.CheckExtension(kvm.CapGetTSCKHz) > 0 {
			khz, err := v.cpu.TSCKHz()
			if err != nil {
				return nil, fmt.Errorf("vCPU %d: %w", i, err)
			}
			s.VCPUs[i].TSCKHz = uint32(khz)
		}
	}
	for id := range s.Chips {
		if s.Chips[id], err = vm.vm.IRQChip(uint32(id)); err != nil {
			return nil, err
		}
	}
	clock, err := vm.vm.Clock()
	if err != nil {
		return nil, err
	}
	s.Clock = clock.Clock
	if vm.assist != nil {
		s.Assist = vm.assist.State()
	}
	return s, nil
}

func saveVCPU(cpu *kvm.VCPU, s *VCPUState, indices []uint32, fpu int) (err error) {
	if s.CPUID, err = cpu.CPUID(); err != nil {
		return err
	}
	if s.MPState, err = cpu.MPState(); err != nil {
		return err
	}
	if s.Regs, err = cpu.Regs(); err != nil {
		return err
	}
	if s.Sregs, err = cpu.Sregs(); err != nil {
		return err
	}
	s.FPU = make([]byte, fpu)
	if err := cpu.FPU(s.FPU); err != nil {
		return err
	}
	if s.XCRS, err = cpu.XCRS(); err != nil {
		return err
	}
	if s.DebugRegs, err = cpu.DebugRegs(); err != nil {
		return err
	}
	lapic, err := cpu.LAPIC()
	if err != nil {
		return err
	}
	s.LAPIC = lapic.Regs[:]
	if s.MSRs, err = cpu.AvailableMSRs(indices); err != nil {
		return err
	}
	order(s.MSRs)
	s.Events, err = cpu.Events()
	return err
}

// order puts the MSRs in the order in which they are set: the TSC before what
// counts in it, its deadline last.
func order(msrs []kvm.MSR) {
	rank := func(m kvm.MSR) int {
		switch m.Index {
		case kvm.MSRTSC:
			return 0
		case kvm.MSRTSCDeadline:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(msrs, func(a, b kvm.MSR) int { return rank(a) - rank(b) })
}
