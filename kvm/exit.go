package kvm

// Offsets in struct kvm_run (<linux/kvm.h>).
const (
	runExitReason = 8  // __u32 exit_reason
	runUnion      = 32 // the union of exit data
	runUnionSize  = 256
	runMinSize    = runUnion + runUnionSize
)

// Exit is why Run returned. Only the part that Reason names is filled in. Its
// Data slices alias the run page: what is written to the Data of a read
// reaches the guest at the next Run, which also ends their validity.
type Exit struct {
	Reason      ExitReason
	IO          IOExit
	MMIO        MMIOExit
	Internal    InternalExit
	FailEntry   FailEntryExit
	Debug       DebugExit
	SystemEvent SystemEventExit
	Hardware    uint64 // ExitUnknown: hw.hardware_exit_reason
}

// IOExit is a port access: Count items of Size bytes, in Data.
type IOExit struct {
	Port  uint16
	Size  int
	Count int
	Out   bool
	Data  []byte
}

// MMIOExit is a memory access outside every slot.
type MMIOExit struct {
	Addr  uint64
	Write bool
	Data  []byte // 1 to 8 bytes
}

// InternalExit is an error inside KVM; Data says more for some suberrors.
type InternalExit struct {
	Suberror uint32
	NData    int
	Data     [16]uint64
}

// FailEntryExit is a guest state that the hardware refuses.
type FailEntryExit struct {
	Reason uint64
	CPU    uint32
}

// DebugExit is struct kvm_debug_exit_arch.
type DebugExit struct {
	Exception uint32
	PC        uint64
	DR6       uint64
	DR7       uint64
}

// SystemEventExit is a request of the guest to the whole VM.
type SystemEventExit struct {
	Type uint32
}
