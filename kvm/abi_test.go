package kvm

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// TestABI asks the C compiler what <linux/kvm.h> says and compares it with this
// package: every number, every struct size, every field offset that is used.
func TestABI(t *testing.T) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc: install gcc and linux-libc-dev to compare with <linux/kvm.h>")
	}
	if _, err := os.Stat("/usr/include/linux/kvm.h"); err != nil {
		t.Skip("no <linux/kvm.h>: install linux-libc-dev")
	}
	want := abiTable()
	var src bytes.Buffer
	src.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\n#include <asm/kvm.h>\nint main(void){\n")
	for expr := range want {
		fmt.Fprintf(&src, "printf(\"%%llu %%s\\n\", (unsigned long long)(%s), %q);\n", expr, expr)
	}
	src.WriteString("return 0;}\n")
	dir := t.TempDir()
	file, bin := filepath.Join(dir, "abi.c"), filepath.Join(dir, "abi")
	if err := os.WriteFile(file, src.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-w", "-o", bin, file).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		value, expr, _ := strings.Cut(strings.TrimSpace(line), " ")
		got, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if got != want[expr] {
			t.Errorf("%s is %#x in the header, %#x here", expr, got, want[expr])
		}
	}
	if seen != len(want) {
		t.Fatalf("checked %d of %d", seen, len(want))
	}
}

// abiTable is everything to compare: C expression and value here.
func abiTable() map[string]uint64 {
	m := maps.Clone(abiNumbers)
	for name, v := range abiCaps {
		m["KVM_CAP_"+name] = uint64(v)
	}
	return m
}

var abiNumbers = map[string]uint64{
	"KVM_GET_API_VERSION": kvmGetAPIVersion, "KVM_CREATE_VM": kvmCreateVM,
	"KVM_GET_MSR_INDEX_LIST": kvmGetMSRIndexList, "KVM_CHECK_EXTENSION": kvmCheckExtension,
	"KVM_GET_VCPU_MMAP_SIZE": kvmGetVCPUMmapSize, "KVM_GET_SUPPORTED_CPUID": kvmGetSupportedCPUID,
	"KVM_CREATE_VCPU": kvmCreateVCPU, "KVM_SET_USER_MEMORY_REGION": kvmSetUserMemoryRegion,
	"KVM_SET_TSS_ADDR": kvmSetTSSAddr, "KVM_SET_IDENTITY_MAP_ADDR": kvmSetIdentityMapAddr,
	"KVM_CREATE_IRQCHIP": kvmCreateIRQChip, "KVM_GET_IRQCHIP": kvmGetIRQChip,
	"KVM_SET_IRQCHIP": kvmSetIRQChip, "KVM_IRQFD": kvmIRQFD, "KVM_CREATE_PIT2": kvmCreatePIT2,
	"KVM_IOEVENTFD": kvmIOEventFD, "KVM_SET_CLOCK": kvmSetClock, "KVM_GET_CLOCK": kvmGetClock,
	"KVM_RUN": kvmRun, "KVM_GET_REGS": kvmGetRegs, "KVM_SET_REGS": kvmSetRegs,
	"KVM_GET_SREGS": kvmGetSregs, "KVM_SET_SREGS": kvmSetSregs, "KVM_TRANSLATE": kvmTranslate,
	"KVM_GET_MSRS": kvmGetMSRs, "KVM_SET_MSRS": kvmSetMSRs, "KVM_GET_LAPIC": kvmGetLAPIC,
	"KVM_SET_LAPIC": kvmSetLAPIC, "KVM_SET_CPUID2": kvmSetCPUID2, "KVM_GET_CPUID2": kvmGetCPUID2,
	"KVM_GET_MP_STATE": kvmGetMPState, "KVM_SET_MP_STATE": kvmSetMPState,
	"KVM_SET_GUEST_DEBUG": kvmSetGuestDebug, "KVM_GET_VCPU_EVENTS": kvmGetVCPUEvents,
	"KVM_SET_VCPU_EVENTS": kvmSetVCPUEvents, "KVM_GET_DEBUGREGS": kvmGetDebugRegs,
	"KVM_SET_DEBUGREGS": kvmSetDebugRegs, "KVM_SET_TSC_KHZ": kvmSetTSCKHz,
	"KVM_GET_TSC_KHZ": kvmGetTSCKHz, "KVM_ENABLE_CAP": kvmEnableCap, "KVM_GET_XSAVE": kvmGetXsave,
	"KVM_SET_XSAVE": kvmSetXsave, "KVM_GET_XCRS": kvmGetXCRS, "KVM_SET_XCRS": kvmSetXCRS,
	"KVM_KVMCLOCK_CTRL": kvmKVMClockCtrl, "KVM_GET_XSAVE2": kvmGetXsave2, "KVM_API_VERSION": APIVersion,

	"KVM_EXIT_UNKNOWN": uint64(ExitUnknown), "KVM_EXIT_EXCEPTION": uint64(ExitException),
	"KVM_EXIT_IO": uint64(ExitIO), "KVM_EXIT_HYPERCALL": uint64(ExitHypercall),
	"KVM_EXIT_DEBUG": uint64(ExitDebug), "KVM_EXIT_HLT": uint64(ExitHLT), "KVM_EXIT_MMIO": uint64(ExitMMIO),
	"KVM_EXIT_IRQ_WINDOW_OPEN": uint64(ExitIRQWindowOpen), "KVM_EXIT_SHUTDOWN": uint64(ExitShutdown),
	"KVM_EXIT_FAIL_ENTRY": uint64(ExitFailEntry), "KVM_EXIT_INTR": uint64(ExitIntr),
	"KVM_EXIT_INTERNAL_ERROR": uint64(ExitInternalError), "KVM_EXIT_SYSTEM_EVENT": uint64(ExitSystemEvent),

	"KVM_MEM_LOG_DIRTY_PAGES": MemLogDirtyPages, "KVM_MEM_READONLY": MemReadonly,
	"KVM_IOEVENTFD_FLAG_DATAMATCH": ioEventFDFlagDatamatch, "KVM_IOEVENTFD_FLAG_PIO": ioEventFDFlagPIO,
	"KVM_IOEVENTFD_FLAG_DEASSIGN": ioEventFDFlagDeassign, "KVM_IRQFD_FLAG_DEASSIGN": irqFDFlagDeassign,
	"KVM_PIT_SPEAKER_DUMMY": pitSpeakerDummy, "KVM_MP_STATE_RUNNABLE": MPStateRunnable,
	"KVM_MP_STATE_UNINITIALIZED": MPStateUninitialized, "KVM_MP_STATE_INIT_RECEIVED": MPStateInitReceived,
	"KVM_MP_STATE_HALTED": MPStateHalted, "KVM_MP_STATE_SIPI_RECEIVED": MPStateSIPIReceived,
	"KVM_GUESTDBG_ENABLE": GuestDebugEnable, "KVM_GUESTDBG_SINGLESTEP": GuestDebugSingleStep,
	"KVM_GUESTDBG_USE_SW_BP": GuestDebugUseSWBP, "KVM_GUESTDBG_USE_HW_BP": GuestDebugUseHWBP,
	"KVM_INTERNAL_ERROR_EMULATION": InternalErrorEmulation, "KVM_INTERNAL_ERROR_SIMUL_EX": InternalErrorSimulEx,
	"KVM_INTERNAL_ERROR_DELIVERY_EV":                               InternalErrorDeliveryEv,
	"KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON":                    InternalErrorUnexpectedVM,
	"KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES":          EmulationFlagInstrBytes,
	"KVM_SYSTEM_EVENT_SHUTDOWN":                                    SystemEventShutdown,
	"KVM_SYSTEM_EVENT_RESET":                                       SystemEventReset,
	"KVM_SYSTEM_EVENT_CRASH":                                       SystemEventCrash,
	"KVM_CPUID_FLAG_SIGNIFCANT_INDEX":                              CPUIDFlagSignificantIndex,
	"KVM_CLOCK_REALTIME":                                           ClockRealtime,
	"KVM_VCPUEVENT_VALID_NMI_PENDING":                              VCPUEventValidNMIPending,
	"KVM_VCPUEVENT_VALID_SIPI_VECTOR":                              VCPUEventValidSIPIVector,
	"KVM_VCPUEVENT_VALID_SHADOW":                                   VCPUEventValidShadow,
	"KVM_VCPUEVENT_VALID_SMM":                                      VCPUEventValidSMM,
	"KVM_VCPUEVENT_VALID_PAYLOAD":                                  VCPUEventValidPayload,
	"KVM_IRQCHIP_PIC_MASTER":                                       IRQChipPICMaster,
	"KVM_IRQCHIP_PIC_SLAVE":                                        IRQChipPICSlave,
	"KVM_IRQCHIP_IOAPIC":                                           IRQChipIOAPIC,
	"KVM_MAX_XCRS":                                                 16,
	"KVM_APIC_REG_SIZE":                                            1024,
	"offsetof(struct kvm_run, immediate_exit)":                     1,
	"offsetof(struct kvm_run, exit_reason)":                        runExitReason,
	"offsetof(struct kvm_run, io)":                                 runUnion,
	"sizeof(((struct kvm_run*)0)->padding)":                        runUnionSize,
	"offsetof(struct kvm_run, io.size)":                            runUnion + 1,
	"offsetof(struct kvm_run, io.port)":                            runUnion + 2,
	"offsetof(struct kvm_run, io.count)":                           runUnion + 4,
	"offsetof(struct kvm_run, io.data_offset)":                     runUnion + 8,
	"offsetof(struct kvm_run, mmio.data)":                          runUnion + 8,
	"offsetof(struct kvm_run, mmio.len)":                           runUnion + 16,
	"offsetof(struct kvm_run, mmio.is_write)":                      runUnion + 20,
	"offsetof(struct kvm_run, internal.ndata)":                     runUnion + 4,
	"offsetof(struct kvm_run, internal.data)":                      runUnion + 8,
	"offsetof(struct kvm_run, emulation_failure.flags)":            runUnion + 8,
	"offsetof(struct kvm_run, emulation_failure.insn_size)":        runUnion + 16,
	"offsetof(struct kvm_run, emulation_failure.insn_bytes)":       runUnion + 17,
	"offsetof(struct kvm_run, fail_entry.cpu)":                     runUnion + 8,
	"offsetof(struct kvm_run, debug.arch.pc)":                      runUnion + 8,
	"offsetof(struct kvm_run, debug.arch.dr6)":                     runUnion + 16,
	"offsetof(struct kvm_run, debug.arch.dr7)":                     runUnion + 24,
	"offsetof(struct kvm_regs, rip)":                               uint64(unsafe.Offsetof(Regs{}.RIP)),
	"offsetof(struct kvm_regs, rsp)":                               uint64(unsafe.Offsetof(Regs{}.RSP)),
	"offsetof(struct kvm_regs, r8)":                                uint64(unsafe.Offsetof(Regs{}.R8)),
	"offsetof(struct kvm_segment, unusable)":                       uint64(unsafe.Offsetof(Segment{}.Unusable)),
	"offsetof(struct kvm_segment, dpl)":                            uint64(unsafe.Offsetof(Segment{}.DPL)),
	"offsetof(struct kvm_segment, l)":                              uint64(unsafe.Offsetof(Segment{}.L)),
	"offsetof(struct kvm_segment, g)":                              uint64(unsafe.Offsetof(Segment{}.G)),
	"offsetof(struct kvm_sregs, ss)":                               uint64(unsafe.Offsetof(Sregs{}.SS)),
	"offsetof(struct kvm_sregs, tr)":                               uint64(unsafe.Offsetof(Sregs{}.TR)),
	"offsetof(struct kvm_sregs, idt)":                              uint64(unsafe.Offsetof(Sregs{}.IDT)),
	"offsetof(struct kvm_sregs, cr4)":                              uint64(unsafe.Offsetof(Sregs{}.CR4)),
	"offsetof(struct kvm_sregs, efer)":                             uint64(unsafe.Offsetof(Sregs{}.EFER)),
	"offsetof(struct kvm_vcpu_events, interrupt)":                  uint64(unsafe.Offsetof(VCPUEvents{}.Interrupt)),
	"offsetof(struct kvm_vcpu_events, nmi)":                        uint64(unsafe.Offsetof(VCPUEvents{}.NMI)),
	"offsetof(struct kvm_vcpu_events, flags)":                      uint64(unsafe.Offsetof(VCPUEvents{}.Flags)),
	"offsetof(struct kvm_vcpu_events, exception_payload)":          uint64(unsafe.Offsetof(VCPUEvents{}.ExceptionPayload)),
	"offsetof(struct kvm_guest_debug, arch)":                       uint64(unsafe.Offsetof(GuestDebug{}.DebugReg)),
	"offsetof(struct kvm_translation, valid)":                      uint64(unsafe.Offsetof(Translation{}.Valid)),
	"offsetof(struct kvm_ioeventfd, fd)":                           uint64(unsafe.Offsetof(ioEventFD{}.FD)),
	"offsetof(struct kvm_ioeventfd, flags)":                        uint64(unsafe.Offsetof(ioEventFD{}.Flags)),
	"offsetof(struct kvm_userspace_memory_region, userspace_addr)": uint64(unsafe.Offsetof(userspaceMemoryRegion{}.UserspaceAddr)),
	"offsetof(struct kvm_enable_cap, args)":                        uint64(unsafe.Offsetof(enableCap{}.Args)),
	"offsetof(struct kvm_clock_data, host_tsc)":                    uint64(unsafe.Offsetof(Clock{}.HostTSC)),
	"offsetof(struct kvm_cpuid2, entries)":                         uint64(unsafe.Offsetof(cpuid2{}.Entries)),
	"offsetof(struct kvm_msrs, entries)":                           uint64(unsafe.Offsetof(msrs{}.Entries)),
	"offsetof(struct kvm_msr_list, indices)":                       uint64(unsafe.Offsetof(msrList{}.Indices)),
	"offsetof(struct kvm_msr_entry, data)":                         uint64(unsafe.Offsetof(MSR{}.Data)),
	"offsetof(struct kvm_xcrs, xcrs)":                              uint64(unsafe.Offsetof(XCRS{}.XCRs)),

	"sizeof(struct kvm_regs)": uint64(unsafe.Sizeof(Regs{})), "sizeof(struct kvm_segment)": uint64(unsafe.Sizeof(Segment{})),
	"sizeof(struct kvm_sregs)": uint64(unsafe.Sizeof(Sregs{})), "sizeof(struct kvm_xsave)": uint64(unsafe.Sizeof(Xsave{})),
	"sizeof(struct kvm_xcrs)": uint64(unsafe.Sizeof(XCRS{})), "sizeof(struct kvm_lapic_state)": uint64(unsafe.Sizeof(LAPIC{})),
	"sizeof(struct kvm_mp_state)": uint64(unsafe.Sizeof(MPState{})), "sizeof(struct kvm_debugregs)": uint64(unsafe.Sizeof(DebugRegs{})),
	"sizeof(struct kvm_vcpu_events)": uint64(unsafe.Sizeof(VCPUEvents{})), "sizeof(struct kvm_msr_entry)": uint64(unsafe.Sizeof(MSR{})),
	"sizeof(struct kvm_cpuid_entry2)": uint64(unsafe.Sizeof(CPUIDEntry{})), "sizeof(struct kvm_guest_debug)": uint64(unsafe.Sizeof(GuestDebug{})),
	"sizeof(struct kvm_clock_data)": uint64(unsafe.Sizeof(Clock{})), "sizeof(struct kvm_irqchip)": uint64(unsafe.Sizeof(IRQChip{})),
	"sizeof(struct kvm_translation)":             uint64(unsafe.Sizeof(Translation{})),
	"sizeof(struct kvm_userspace_memory_region)": uint64(unsafe.Sizeof(userspaceMemoryRegion{})),
	"sizeof(struct kvm_irqfd)":                   uint64(unsafe.Sizeof(irqFD{})), "sizeof(struct kvm_ioeventfd)": uint64(unsafe.Sizeof(ioEventFD{})),
	"sizeof(struct kvm_pit_config)": uint64(unsafe.Sizeof(pitConfig{})), "sizeof(struct kvm_enable_cap)": uint64(unsafe.Sizeof(enableCap{})),
}

var abiCaps = map[string]Cap{
	"IRQCHIP": CapIRQChip, "USER_MEMORY": CapUserMemory, "SET_TSS_ADDR": CapSetTSSAddr, "EXT_CPUID": CapExtCPUID,
	"NR_VCPUS": CapNrVCPUs, "MP_STATE": CapMPState, "SET_GUEST_DEBUG": CapSetGuestDebug, "IRQFD": CapIRQFD,
	"PIT2": CapPIT2, "IOEVENTFD": CapIOEventFD, "SET_IDENTITY_MAP_ADDR": CapSetIdentityMapAddr,
	"ADJUST_CLOCK": CapAdjustClock, "VCPU_EVENTS": CapVCPUEvents, "DEBUGREGS": CapDebugRegs, "XSAVE": CapXsave,
	"XCRS": CapXCRS, "GET_TSC_KHZ": CapGetTSCKHz, "MAX_VCPUS": CapMaxVCPUs,
	"TSC_DEADLINE_TIMER": CapTSCDeadlineTimer, "IMMEDIATE_EXIT": CapImmediateExit,
	"EXIT_ON_EMULATION_FAILURE": CapExitOnEmulationFailure, "XSAVE2": CapXsave2,
}
