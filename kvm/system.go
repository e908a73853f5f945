package kvm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const devicePath = "/dev/kvm"

var (
	// ErrNoKVM says that this machine has no usable /dev/kvm.
	ErrNoKVM = errors.New("no KVM on this machine")
	// ErrAPIVersion says that /dev/kvm speaks another API than 12.
	ErrAPIVersion = errors.New("unknown KVM API version")
)

// System is an open /dev/kvm.
type System struct {
	fd      int
	runSize int // bytes of the run page, KVM_GET_VCPU_MMAP_SIZE
}

// Open opens /dev/kvm and checks the API version. The error says what to do.
func Open() (*System, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(err)
	}
	s, err := newSystem(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return s, nil
}

// openError turns the errno of open into advice.
func openError(err error) error {
	cause := &fs.PathError{Op: "open", Path: devicePath, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w: load kvm_intel or kvm_amd (enable VT-x/AMD-V in the firmware, or nested virtualization for this VM); in a container pass the device", ErrNoKVM, cause)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("no permission to use KVM: %w: join the group that owns the device (usually kvm), or allow it in the device cgroup", cause)
	}
	return fmt.Errorf("KVM: %w", cause)
}

func newSystem(fd int) (*System, error) {
	version, err := ioctl(fd, "KVM_GET_API_VERSION", kvmGetAPIVersion, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not a KVM device: %w", ErrNoKVM, devicePath, err)
	}
	if version != APIVersion {
		return nil, fmt.Errorf("%w: %s has %d, want %d", ErrAPIVersion, devicePath, version, APIVersion)
	}
	size, err := ioctl(fd, "KVM_GET_VCPU_MMAP_SIZE", kvmGetVCPUMmapSize, 0)
	if err != nil {
		return nil, err
	}
	if size < runMinSize {
		return nil, fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE is %d, want at least %d", size, runMinSize)
	}
	return &System{fd: fd, runSize: size}, nil
}

// Close closes /dev/kvm. VMs made from it live on.
func (s *System) Close() error { return os.NewSyscallError("close", unix.Close(s.fd)) }

// CheckExtension returns the value of a capability; 0 means absent.
func (s *System) CheckExtension(c Cap) int {
	n, err := ioctl(s.fd, "KVM_CHECK_EXTENSION", kvmCheckExtension, uintptr(c))
	if err != nil {
		return 0
	}
	return n
}

// CreateVM makes a VM without memory, vCPUs or interrupt controllers.
func (s *System) CreateVM() (*VM, error) {
	fd, err := ioctl(s.fd, "KVM_CREATE_VM", kvmCreateVM, 0)
	if err != nil {
		return nil, err
	}
	return &VM{fd: fd, sys: s}, nil
}

// SupportedCPUID returns the CPUID leaves that KVM can give to a guest
// (KVM_GET_SUPPORTED_CPUID).
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	arg := &cpuid2{Nent: maxCPUIDEntries}
	if _, err := ioctlPtr(s.fd, "KVM_GET_SUPPORTED_CPUID", kvmGetSupportedCPUID, arg); err != nil {
		return nil, err
	}
	return arg.Entries[:min(arg.Nent, maxCPUIDEntries)], nil
}

// MSRIndexList returns the MSRs that are part of a vCPU's state
// (KVM_GET_MSR_INDEX_LIST).
func (s *System) MSRIndexList() ([]uint32, error) {
	arg := &msrList{NMSRs: maxMSRIndices}
	if _, err := ioctlPtr(s.fd, "KVM_GET_MSR_INDEX_LIST", kvmGetMSRIndexList, arg); err != nil {
		return nil, err
	}
	return arg.Indices[:min(arg.NMSRs, maxMSRIndices)], nil
}

// Requirement is a capability with the reason to want it.
type Requirement struct {
	Cap      Cap
	Name     string
	Why      string
	Required bool // without it no VM starts; otherwise it is only slower or poorer
}

// Requirements lists what lucid asks of a KVM, for `lucid check`.
var Requirements = []Requirement{
	{CapUserMemory, "KVM_CAP_USER_MEMORY", "guest RAM is our memory", true},
	{CapIRQChip, "KVM_CAP_IRQCHIP", "interrupt controllers in the kernel", true},
	{CapSetTSSAddr, "KVM_CAP_SET_TSS_ADDR", "Intel real mode", true},
	{CapExtCPUID, "KVM_CAP_EXT_CPUID", "CPUID of the guest", true},
	{CapMPState, "KVM_CAP_MP_STATE", "start of further vCPUs", true},
	{CapIRQFD, "KVM_CAP_IRQFD", "device interrupts", true},
	{CapImmediateExit, "KVM_CAP_IMMEDIATE_EXIT", "stop a vCPU without a race", true},
	{CapIOEventFD, "KVM_CAP_IOEVENTFD", "queue kicks without an exit", false},
	{CapTSCDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER", "guest timer without a PIT", false},
	{CapSetGuestDebug, "KVM_CAP_SET_GUEST_DEBUG", "the SYSCALL assist of software KVM", false},
	{CapExitOnEmulationFailure, "KVM_CAP_EXIT_ON_EMULATION_FAILURE", "the instruction assist of software KVM", false},
	{CapXsave, "KVM_CAP_XSAVE", "snapshot", false},
	{CapXCRS, "KVM_CAP_XCRS", "snapshot", false},
	{CapVCPUEvents, "KVM_CAP_VCPU_EVENTS", "snapshot", false},
	{CapDebugRegs, "KVM_CAP_DEBUGREGS", "snapshot", false},
	{CapAdjustClock, "KVM_CAP_ADJUST_CLOCK", "snapshot", false},
	{CapPreFaultMemory, "KVM_CAP_PRE_FAULT_MEMORY", "a start from a template with fewer exits", false},
}

// Missing returns the requirements that this KVM does not meet.
func (s *System) Missing() []Requirement {
	var missing []Requirement
	for _, r := range Requirements {
		if s.CheckExtension(r.Cap) == 0 {
			missing = append(missing, r)
		}
	}
	return missing
}

// String names the reason, without the KVM_EXIT_ prefix.
func (r ExitReason) String() string {
	if name, ok := exitNames[r]; ok {
		return name
	}
	return "exit-" + strconv.Itoa(int(r))
}
