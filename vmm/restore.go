package vmm

import (
	"fmt"
	"slices"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

// restore makes the vCPUs and puts everything where it was.
func (vm *VM) restore(needs assist.Needs, leaves []kvm.CPUIDEntry) error {
	if err := vm.checkRestore(needs); err != nil {
		return err
	}
	if err := vm.createVCPUs(leaves); err != nil {
		return err
	}
	if err := vm.checkCPUID(); err != nil {
		return err
	}
	if err := vm.restoreMachine(); err != nil {
		return err
	}
	saved := vm.cfg.Restore.VCPUs
	for i, v := range vm.vcpus {
		var err error
		if i < len(saved) {
			err = vm.restoreVCPU(v.cpu, &saved[i])
		} else {
			err = vm.joinVCPU(v.cpu, &saved[0])
		}
		if err != nil {
			return fmt.Errorf("vCPU %d: %w", i, err)
		}
	}
	vm.restored = true
	return nil
}

// checkRestore says whether a saved VM can go on in this one.
func (vm *VM) checkRestore(needs assist.Needs) error {
	s := vm.cfg.Restore
	if err := vm.sys.CheckState(); err != nil {
		return err
	}
	if n := len(s.VCPUs); n < 1 || n > vm.cfg.VCPUs {
		return fmt.Errorf("the saved VM has %d vCPUs, this one %d", n, vm.cfg.VCPUs)
	}
	if s.Assist.Needs != needs {
		return fmt.Errorf("the saved VM ran on a KVM that lacks %s; this one lacks %s", s.Assist.Needs, needs)
	}
	return nil
}

// checkCPUID compares what the new vCPUs show their guest with what the saved
// ones showed. Both sides are what KVM_GET_CPUID2 says, not what was set:
// software KVM adds the host's own features to it.
func (vm *VM) checkCPUID() error {
	for id, v := range vm.vcpus[:len(vm.cfg.Restore.VCPUs)] {
		now, err := v.cpu.CPUID()
		if err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
		if leaf, ok := sameCPUID(vm.cfg.Restore.VCPUs[id].CPUID, now); !ok {
			return fmt.Errorf("the saved VM ran on another CPU or KVM (CPUID leaf %#x differs)", leaf)
		}
	}
	return nil
}

// sameCPUID compares two tables and names the first leaf that differs. KVM may
// hand a table back without its empty end.
func sameCPUID(a, b []kvm.CPUIDEntry) (leaf uint32, ok bool) {
	for len(b) > len(a) && b[len(b)-1] == (kvm.CPUIDEntry{}) {
		b = b[:len(b)-1]
	}
	for i := range min(len(a), len(b)) {
		if !sameLeaf(a[i], b[i]) {
			return b[i].Function, false
		}
	}
	switch {
	case len(a) < len(b):
		return b[len(a)].Function, false
	case len(b) < len(a):
		return a[len(b)].Function, false
	}
	return 0, true
}

// sameLeaf compares what does not change while a guest runs: KVM keeps some
// bits up to date with the control registers and APIC_BASE.
func sameLeaf(a, b kvm.CPUIDEntry) bool {
	switch {
	case a.Function != b.Function || a.Index != b.Index:
		return false
	case a.Function == leafFeatures: // OSXSAVE, and whether the APIC is on
		return a.EAX == b.EAX && a.EBX == b.EBX && a.ECX&^ecxOSXSAVE == b.ECX&^ecxOSXSAVE && a.EDX&^edxAPIC == b.EDX&^edxAPIC
	case a.Function == leafExtended && a.Index == 0: // OSPKE
		return a.EAX == b.EAX && a.EBX == b.EBX && a.ECX&^ecxOSPKE == b.ECX&^ecxOSPKE && a.EDX == b.EDX
	case a.Function == leafXSave && a.Index <= 1: // sizes of what XCR0 and XSS enable
		return a.EAX == b.EAX && a.EDX == b.EDX
	}
	return a.EAX == b.EAX && a.EBX == b.EBX && a.ECX == b.ECX && a.EDX == b.EDX
}

// restoreMachine sets what the VM has besides vCPUs.
func (vm *VM) restoreMachine() error {
	s := vm.cfg.Restore
	for _, c := range s.Chips {
		if err := vm.vm.SetIRQChip(c); err != nil {
			return err
		}
	}
	if vm.assist != nil {
		vm.assist.SetState(s.Assist)
	}
	// No KVM_CLOCK_REALTIME: the guest's monotonic clock goes on where it
	// stood. Its wall clock is set by the agent.
	return vm.vm.SetClock(kvm.Clock{Clock: s.Clock})
}

// restoreVCPU sets everything but CPUID, in the order of save.go.
func (vm *VM) restoreVCPU(cpu *kvm.VCPU, s *VCPUState) error {
	if n := vm.vm.XsaveSize(); len(s.FPU) != n {
		return fmt.Errorf("saved FPU state of %d bytes, this KVM has %d", len(s.FPU), n)
	}
	if err := vm.restoreTSCKHz(cpu, s.TSCKHz); err != nil {
		return err
	}
	var lapic kvm.LAPIC
	copy(lapic.Regs[:], s.LAPIC)
	for _, set := range []func() error{
		func() error { return cpu.SetMPState(s.MPState) },
		func() error { return cpu.SetRegs(&s.Regs) },
		func() error { return cpu.SetSregs(&s.Sregs) },
		func() error { return cpu.SetFPU(s.FPU) },
		func() error { return cpu.SetXCRS(&s.XCRS) },
		func() error { return cpu.SetDebugRegs(&s.DebugRegs) },
		func() error { return cpu.SetLAPIC(&lapic) },
		func() error { return cpu.RestoreMSRs(armTimer(s.MSRs)) },
		func() error { return cpu.SetEvents(&s.Events) },
		cpu.ClockStood,
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

// joinVCPU is for a vCPU that the saved VM did not have. It waits for the guest
// to start it, as each but the first does at a boot; only its TSC must not begin
// at 0. KVM takes values that are written within a second for one and the same,
// and kvmclock is the quick one as long as all vCPUs agree.
func (vm *VM) joinVCPU(cpu *kvm.VCPU, first *VCPUState) error {
	if err := vm.restoreTSCKHz(cpu, first.TSCKHz); err != nil {
		return err
	}
	tsc := slices.IndexFunc(first.MSRs, func(m kvm.MSR) bool { return m.Index == kvm.MSRTSC })
	if tsc < 0 {
		return nil
	}
	return cpu.RestoreMSRs(first.MSRs[tsc : tsc+1])
}

// tscTolerance is how much a TSC may differ from the saved one without scaling:
// 250 ppm, what Firecracker takes and NTP corrects.
const tscTolerance = 4000 // one in

// restoreTSCKHz has KVM scale the TSC if it runs at another frequency here, as
// it may after the host was booted again.
func (vm *VM) restoreTSCKHz(cpu *kvm.VCPU, saved uint32) error {
	if saved == 0 || vm.sys.CheckExtension(kvm.CapGetTSCKHz) == 0 {
		return nil
	}
	now, err := cpu.TSCKHz()
	if err != nil {
		return err
	}
	diff := int(saved) - now
	if max(diff, -diff) <= now/tscTolerance {
		return nil
	}
	if err := cpu.SetTSCKHz(int(saved)); err != nil {
		return fmt.Errorf("the saved VM's TSC ran at %d kHz, this CPU's runs at %d: %w", saved, now, err)
	}
	return nil
}

// PreFault maps parts of the RAM for the guest before it runs, where KVM can (Linux 6.11): a
// nested page fault less for each page that it will touch. They are places in the file from which the
// Memory was made, which has no hole. An error costs time only. Preconditions: New has returned and
// Run was not called.
func (vm *VM) PreFault(parts []guestmem.Extent) error {
	if vm.sys.CheckExtension(kvm.CapPreFaultMemory) == 0 {
		return nil
	}
	for _, p := range parts {
		begin := uint64(0) // of the region, in the file
		for _, r := range vm.cfg.Memory.Regions() {
			end := begin + uint64(len(r.Host))
			if from, to := max(p.Off, begin), min(p.Off+p.Len, end); from < to {
				if err := vm.vcpus[0].cpu.PreFault(r.Addr+from-begin, to-from); err != nil {
					return err
				}
			}
			begin = end
		}
	}
	return nil
}

// armTimer replaces a TSC_DEADLINE of 0 by the TSC. It is 0 when no timer was
// set, and also when it had just expired and its interrupt was still to come,
// which nothing else in the state tells. A timer that fires for nothing is
// harmless; one that never fires is not.
func armTimer(msrs []kvm.MSR) []kvm.MSR {
	tsc := slices.IndexFunc(msrs, func(m kvm.MSR) bool { return m.Index == kvm.MSRTSC })
	deadline := slices.IndexFunc(msrs, func(m kvm.MSR) bool { return m.Index == kvm.MSRTSCDeadline })
	if tsc < 0 || deadline < 0 || msrs[deadline].Data != 0 {
		return msrs
	}
	msrs = slices.Clone(msrs)
	msrs[deadline].Data = msrs[tsc].Data
	return msrs
}
