package kvm

// APIVersion is the only version of the stable API (KVM_GET_API_VERSION).
const APIVersion = 12

// Cap is a KVM_CAP_ number for CheckExtension.
type Cap uint32

// Capabilities that lucid asks about.
const (
	CapIRQChip                Cap = 0   // KVM_CAP_IRQCHIP
	CapUserMemory             Cap = 3   // KVM_CAP_USER_MEMORY
	CapSetTSSAddr             Cap = 4   // KVM_CAP_SET_TSS_ADDR
	CapExtCPUID               Cap = 7   // KVM_CAP_EXT_CPUID
	CapNrVCPUs                Cap = 9   // KVM_CAP_NR_VCPUS, the recommended maximum
	CapMPState                Cap = 14  // KVM_CAP_MP_STATE
	CapSetGuestDebug          Cap = 23  // KVM_CAP_SET_GUEST_DEBUG
	CapIRQFD                  Cap = 32  // KVM_CAP_IRQFD
	CapPIT2                   Cap = 33  // KVM_CAP_PIT2
	CapIOEventFD              Cap = 36  // KVM_CAP_IOEVENTFD
	CapSetIdentityMapAddr     Cap = 37  // KVM_CAP_SET_IDENTITY_MAP_ADDR
	CapAdjustClock            Cap = 39  // KVM_CAP_ADJUST_CLOCK
	CapVCPUEvents             Cap = 41  // KVM_CAP_VCPU_EVENTS
	CapDebugRegs              Cap = 50  // KVM_CAP_DEBUGREGS
	CapXsave                  Cap = 55  // KVM_CAP_XSAVE
	CapXCRS                   Cap = 56  // KVM_CAP_XCRS
	CapGetTSCKHz              Cap = 61  // KVM_CAP_GET_TSC_KHZ
	CapMaxVCPUs               Cap = 66  // KVM_CAP_MAX_VCPUS
	CapTSCDeadlineTimer       Cap = 72  // KVM_CAP_TSC_DEADLINE_TIMER
	CapImmediateExit          Cap = 136 // KVM_CAP_IMMEDIATE_EXIT
	CapExitOnEmulationFailure Cap = 204 // KVM_CAP_EXIT_ON_EMULATION_FAILURE
	CapXsave2                 Cap = 208 // KVM_CAP_XSAVE2
	CapPreFaultMemory         Cap = 236 // KVM_CAP_PRE_FAULT_MEMORY, Linux 6.11
)

// ExitReason is a KVM_EXIT_ number.
type ExitReason uint32

// Exit reasons, with the names of <linux/kvm.h>.
const (
	ExitUnknown       ExitReason = 0  // KVM_EXIT_UNKNOWN
	ExitException     ExitReason = 1  // KVM_EXIT_EXCEPTION
	ExitIO            ExitReason = 2  // KVM_EXIT_IO
	ExitHypercall     ExitReason = 3  // KVM_EXIT_HYPERCALL
	ExitDebug         ExitReason = 4  // KVM_EXIT_DEBUG
	ExitHLT           ExitReason = 5  // KVM_EXIT_HLT
	ExitMMIO          ExitReason = 6  // KVM_EXIT_MMIO
	ExitIRQWindowOpen ExitReason = 7  // KVM_EXIT_IRQ_WINDOW_OPEN
	ExitShutdown      ExitReason = 8  // KVM_EXIT_SHUTDOWN
	ExitFailEntry     ExitReason = 9  // KVM_EXIT_FAIL_ENTRY
	ExitIntr          ExitReason = 10 // KVM_EXIT_INTR
	ExitInternalError ExitReason = 17 // KVM_EXIT_INTERNAL_ERROR
	ExitSystemEvent   ExitReason = 24 // KVM_EXIT_SYSTEM_EVENT
	ExitMemoryFault   ExitReason = 39 // KVM_EXIT_MEMORY_FAULT

	// NumExitReasons bounds tables indexed by reason.
	NumExitReasons = 64
)

var exitNames = map[ExitReason]string{
	ExitUnknown: "unknown", ExitException: "exception", ExitIO: "io",
	ExitHypercall: "hypercall", ExitDebug: "debug", ExitHLT: "hlt",
	ExitMMIO: "mmio", ExitIRQWindowOpen: "irq-window", ExitShutdown: "shutdown",
	ExitFailEntry: "fail-entry", ExitIntr: "intr", ExitInternalError: "internal-error",
	ExitSystemEvent: "system-event", ExitMemoryFault: "memory-fault",
}

// ioctl numbers of <linux/kvm.h>: _IO, _IOW, _IOR and _IOWR of type 0xAE.
const (
	kvmGetAPIVersion       = 0xae00     // KVM_GET_API_VERSION
	kvmCreateVM            = 0xae01     // KVM_CREATE_VM
	kvmGetMSRIndexList     = 0xc004ae02 // KVM_GET_MSR_INDEX_LIST
	kvmCheckExtension      = 0xae03     // KVM_CHECK_EXTENSION
	kvmGetVCPUMmapSize     = 0xae04     // KVM_GET_VCPU_MMAP_SIZE
	kvmGetSupportedCPUID   = 0xc008ae05 // KVM_GET_SUPPORTED_CPUID
	kvmCreateVCPU          = 0xae41     // KVM_CREATE_VCPU
	kvmSetUserMemoryRegion = 0x4020ae46 // KVM_SET_USER_MEMORY_REGION
	kvmSetTSSAddr          = 0xae47     // KVM_SET_TSS_ADDR
	kvmSetIdentityMapAddr  = 0x4008ae48 // KVM_SET_IDENTITY_MAP_ADDR
	kvmCreateIRQChip       = 0xae60     // KVM_CREATE_IRQCHIP
	kvmGetIRQChip          = 0xc208ae62 // KVM_GET_IRQCHIP
	kvmSetIRQChip          = 0x8208ae63 // KVM_SET_IRQCHIP
	kvmIRQFD               = 0x4020ae76 // KVM_IRQFD
	kvmCreatePIT2          = 0x4040ae77 // KVM_CREATE_PIT2
	kvmIOEventFD           = 0x4040ae79 // KVM_IOEVENTFD
	kvmSetClock            = 0x4030ae7b // KVM_SET_CLOCK
	kvmGetClock            = 0x8030ae7c // KVM_GET_CLOCK
	kvmRun                 = 0xae80     // KVM_RUN
	kvmGetRegs             = 0x8090ae81 // KVM_GET_REGS
	kvmSetRegs             = 0x4090ae82 // KVM_SET_REGS
	kvmGetSregs            = 0x8138ae83 // KVM_GET_SREGS
	kvmSetSregs            = 0x4138ae84 // KVM_SET_SREGS
	kvmTranslate           = 0xc018ae85 // KVM_TRANSLATE
	kvmGetMSRs             = 0xc008ae88 // KVM_GET_MSRS
	kvmSetMSRs             = 0x4008ae89 // KVM_SET_MSRS
	kvmGetLAPIC            = 0x8400ae8e // KVM_GET_LAPIC
	kvmSetLAPIC            = 0x4400ae8f // KVM_SET_LAPIC
	kvmSetCPUID2           = 0x4008ae90 // KVM_SET_CPUID2
	kvmGetCPUID2           = 0xc008ae91 // KVM_GET_CPUID2
	kvmGetMPState          = 0x8004ae98 // KVM_GET_MP_STATE
	kvmSetMPState          = 0x4004ae99 // KVM_SET_MP_STATE
	kvmSetGuestDebug       = 0x4048ae9b // KVM_SET_GUEST_DEBUG
	kvmGetVCPUEvents       = 0x8040ae9f // KVM_GET_VCPU_EVENTS
	kvmSetVCPUEvents       = 0x4040aea0 // KVM_SET_VCPU_EVENTS
	kvmGetDebugRegs        = 0x8080aea1 // KVM_GET_DEBUGREGS
	kvmSetDebugRegs        = 0x4080aea2 // KVM_SET_DEBUGREGS
	kvmSetTSCKHz           = 0xaea2     // KVM_SET_TSC_KHZ
	kvmGetTSCKHz           = 0xaea3     // KVM_GET_TSC_KHZ
	kvmEnableCap           = 0x4068aea3 // KVM_ENABLE_CAP
	kvmGetXsave            = 0x9000aea4 // KVM_GET_XSAVE
	kvmSetXsave            = 0x5000aea5 // KVM_SET_XSAVE
	kvmGetXCRS             = 0x8188aea6 // KVM_GET_XCRS
	kvmSetXCRS             = 0x4188aea7 // KVM_SET_XCRS
	kvmKVMClockCtrl        = 0xaead     // KVM_KVMCLOCK_CTRL
	kvmGetXsave2           = 0x9000aecf // KVM_GET_XSAVE2
	kvmPreFaultMemory      = 0xc040aed5 // KVM_PRE_FAULT_MEMORY
)

// Flags and small numbers, with the names of <linux/kvm.h>.
const (
	MemLogDirtyPages = 1 << 0 // KVM_MEM_LOG_DIRTY_PAGES
	MemReadonly      = 1 << 1 // KVM_MEM_READONLY

	ioEventFDFlagDatamatch = 1 << 0 // KVM_IOEVENTFD_FLAG_DATAMATCH
	ioEventFDFlagPIO       = 1 << 1 // KVM_IOEVENTFD_FLAG_PIO
	ioEventFDFlagDeassign  = 1 << 2 // KVM_IOEVENTFD_FLAG_DEASSIGN
	irqFDFlagDeassign      = 1 << 0 // KVM_IRQFD_FLAG_DEASSIGN
	pitSpeakerDummy        = 1 << 0 // KVM_PIT_SPEAKER_DUMMY

	MPStateRunnable      = 0 // KVM_MP_STATE_RUNNABLE
	MPStateUninitialized = 1 // KVM_MP_STATE_UNINITIALIZED
	MPStateInitReceived  = 2 // KVM_MP_STATE_INIT_RECEIVED
	MPStateHalted        = 3 // KVM_MP_STATE_HALTED
	MPStateSIPIReceived  = 4 // KVM_MP_STATE_SIPI_RECEIVED

	GuestDebugEnable     = 1 << 0  // KVM_GUESTDBG_ENABLE
	GuestDebugSingleStep = 1 << 1  // KVM_GUESTDBG_SINGLESTEP
	GuestDebugUseSWBP    = 1 << 16 // KVM_GUESTDBG_USE_SW_BP
	GuestDebugUseHWBP    = 1 << 17 // KVM_GUESTDBG_USE_HW_BP

	InternalErrorEmulation    = 1      // KVM_INTERNAL_ERROR_EMULATION
	InternalErrorSimulEx      = 2      // KVM_INTERNAL_ERROR_SIMUL_EX
	InternalErrorDeliveryEv   = 3      // KVM_INTERNAL_ERROR_DELIVERY_EV
	InternalErrorUnexpectedVM = 4      // KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON
	EmulationFlagInstrBytes   = 1 << 0 // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
	SystemEventShutdown       = 1      // KVM_SYSTEM_EVENT_SHUTDOWN
	SystemEventReset          = 2      // KVM_SYSTEM_EVENT_RESET
	SystemEventCrash          = 3      // KVM_SYSTEM_EVENT_CRASH
	CPUIDFlagSignificantIndex = 1 << 0 // KVM_CPUID_FLAG_SIGNIFCANT_INDEX
	ClockRealtime             = 1 << 2 // KVM_CLOCK_REALTIME
	VCPUEventValidNMIPending  = 1 << 0 // KVM_VCPUEVENT_VALID_NMI_PENDING
	VCPUEventValidSIPIVector  = 1 << 1 // KVM_VCPUEVENT_VALID_SIPI_VECTOR
	VCPUEventValidShadow      = 1 << 2 // KVM_VCPUEVENT_VALID_SHADOW
	VCPUEventValidSMM         = 1 << 3 // KVM_VCPUEVENT_VALID_SMM
	VCPUEventValidPayload     = 1 << 4 // KVM_VCPUEVENT_VALID_PAYLOAD
	IRQChipPICMaster          = 0      // KVM_IRQCHIP_PIC_MASTER
	IRQChipPICSlave           = 1      // KVM_IRQCHIP_PIC_SLAVE
	IRQChipIOAPIC             = 2      // KVM_IRQCHIP_IOAPIC
	maxCPUIDEntries           = 256    // KVM_MAX_CPUID_ENTRIES
	maxMSRIndices             = 1024
)
