package vmm

import (
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

// State is a saved VM without its memory and its devices: vCPUs, interrupt
// controllers, clock.
type State struct {
	VCPUs  []VCPUState
	Chips  [3]kvm.IRQChip // two PICs and the IOAPIC
	Clock  uint64         // kvmclock, ns
	Assist assist.State
}

// VCPUState is one vCPU.
type VCPUState struct {
	CPUID     []kvm.CPUIDEntry
	MPState   kvm.MPState
	Regs      kvm.Regs
	Sregs     kvm.Sregs
	FPU       []byte // struct kvm_xsave, with its extra part if there is one
	XCRS      kvm.XCRS
	DebugRegs kvm.DebugRegs
	LAPIC     []byte // struct kvm_lapic_state
	TSCKHz    uint32 // 0: this KVM does not say
	MSRs      []kvm.MSR
	Events    kvm.VCPUEvents
}

// Bounds on what is decoded.
const (
	maxCPUID  = 256       // KVM_MAX_CPUID_ENTRIES
	maxMSRs   = 1024      // of KVM_GET_MSR_INDEX_LIST
	maxFPU    = 64 << 10  // AMX has 11 KiB
	lapicSize = 1024      // KVM_APIC_REG_SIZE
	cpuidSize = 10 * 4    // bytes of an encoded entry
	msrSize   = 4 + 4 + 8 //
)

// Encode appends the state to w.
func (s *State) Encode(w *vmstate.Writer) {
	w.U32(uint32(len(s.VCPUs)))
	for i := range s.VCPUs {
		s.VCPUs[i].encode(w)
	}
	for i := range s.Chips {
		w.U32(s.Chips[i].ChipID)
		w.Bytes(s.Chips[i].State[:])
	}
	w.U64(s.Clock)
	s.Assist.Encode(w)
}

func (c *VCPUState) encode(w *vmstate.Writer) {
	w.U32(uint32(len(c.CPUID)))
	for i := range c.CPUID {
		w.Struct(&c.CPUID[i])
	}
	for _, v := range []any{c.MPState, &c.Regs, &c.Sregs} {
		w.Struct(v)
	}
	w.Bytes(c.FPU)
	w.Struct(&c.XCRS)
	w.Struct(&c.DebugRegs)
	w.Bytes(c.LAPIC)
	w.U32(c.TSCKHz)
	w.U32(uint32(len(c.MSRs)))
	for i := range c.MSRs {
		w.Struct(&c.MSRs[i])
	}
	w.Struct(&c.Events)
}

// DecodeState reads what Encode wrote; r has the error, if any. What it returns
// has the right shape. Whether a CPU can be in that state, KVM says.
func DecodeState(r *vmstate.Reader) *State {
	s := &State{VCPUs: make([]VCPUState, r.Count(MaxVCPUs, 1))}
	for i := range s.VCPUs {
		s.VCPUs[i].decode(r)
	}
	for i := range s.Chips {
		s.Chips[i].ChipID = r.U32()
		if s.Chips[i].ChipID != uint32(i) {
			r.Fail("interrupt controller %d in place of %d", s.Chips[i].ChipID, i)
		}
		copy(s.Chips[i].State[:], exactly(r, len(s.Chips[i].State)))
	}
	s.Clock = r.U64()
	s.Assist = assist.DecodeState(r)
	return s
}

func (c *VCPUState) decode(r *vmstate.Reader) {
	c.CPUID = make([]kvm.CPUIDEntry, r.Count(maxCPUID, cpuidSize))
	for i := range c.CPUID {
		r.Struct(&c.CPUID[i])
	}
	for _, v := range []any{&c.MPState, &c.Regs, &c.Sregs} {
		r.Struct(v)
	}
	c.FPU = r.Bytes(maxFPU)
	r.Struct(&c.XCRS)
	if c.XCRS.NrXCRs > uint32(len(c.XCRS.XCRs)) {
		r.Fail("%d extended control registers", c.XCRS.NrXCRs)
	}
	r.Struct(&c.DebugRegs)
	c.LAPIC = exactly(r, lapicSize)
	c.TSCKHz = r.U32()
	c.MSRs = make([]kvm.MSR, r.Count(maxMSRs, msrSize))
	for i := range c.MSRs {
		r.Struct(&c.MSRs[i])
	}
	r.Struct(&c.Events)
}

// exactly reads bytes of a fixed length.
func exactly(r *vmstate.Reader, n int) []byte {
	p := r.Bytes(n)
	if len(p) != n {
		r.Fail("%d bytes in place of %d", len(p), n)
	}
	return p
}
