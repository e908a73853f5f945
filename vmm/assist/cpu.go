package assist

import "github.com/lucid-containers/lucid/kvm"

// CPU is what this package needs of a vCPU. *kvm.VCPU is one.
type CPU interface {
	registers
	fpu
	system
}

type registers interface {
	Regs() (kvm.Regs, error)
	SetRegs(*kvm.Regs) error
	Sregs() (kvm.Sregs, error)
	SetSregs(*kvm.Sregs) error
}

type fpu interface {
	Xsave(*kvm.Xsave) error
	SetXsave(*kvm.Xsave) error
	XCRS() (kvm.XCRS, error)
}

type system interface {
	MSR(index uint32) (uint64, error)
	SetMSR(index uint32, v uint64) error
	Events() (kvm.VCPUEvents, error)
	SetEvents(*kvm.VCPUEvents) error
	DebugRegs() (kvm.DebugRegs, error)
	SetDebugRegs(*kvm.DebugRegs) error
	SetGuestDebug(*kvm.GuestDebug) error
}

var _ CPU = (*kvm.VCPU)(nil)

// Register bits (Intel SDM volumes 1 and 3).
const (
	flagCF       = 1 << 0
	flagReserved = 1 << 1
	flagPF       = 1 << 2
	flagAF       = 1 << 4
	flagZF       = 1 << 6
	flagSF       = 1 << 7
	flagTF       = 1 << 8
	flagIF       = 1 << 9
	flagDF       = 1 << 10
	flagOF       = 1 << 11
	flagNT       = 1 << 14
	flagRF       = 1 << 16
	flagVM       = 1 << 17
	flagAC       = 1 << 18
	flagID       = 1 << 21
	flagsArith   = flagCF | flagPF | flagAF | flagZF | flagSF | flagOF
	flagsUser    = flagsArith | flagTF | flagDF | flagNT | flagAC | flagID // what POPF changes at any privilege

	cr0MP       = 1 << 1
	cr0TS       = 1 << 3
	cr0WP       = 1 << 16
	cr0PG       = 1 << 31
	cr4PGE      = 1 << 7
	cr4LA57     = 1 << 12
	cr4FSGSBASE = 1 << 16
	cr4OSXSAVE  = 1 << 18
	eferSCE     = 1 << 0
	eferLMA     = 1 << 10
)

// fault is an exception for the guest. It is an error so that instructions can
// return it; it never reaches a person.
type fault struct {
	vector  uint8
	code    uint32
	hasCode bool
	cr2     uint64 // vectorPF only
}

const (
	vectorDB = 1
	vectorBP = 3
	vectorUD = 6
	vectorNM = 7
	vectorGP = 13
	vectorPF = 14

	pfPresent = 1 << 0 // error code of #PF
	pfWrite   = 1 << 1
	pfUser    = 1 << 2
	pfFetch   = 1 << 4
)

func (f *fault) Error() string { return "exception for the guest" }

var (
	errUD = &fault{vector: vectorUD}
	errNM = &fault{vector: vectorNM}
	errGP = &fault{vector: vectorGP, hasCode: true}
)

// inject makes the guest take the exception at its next entry.
func inject(cpu CPU, f *fault) error {
	if f.vector == vectorPF {
		s, err := cpu.Sregs()
		if err != nil {
			return err
		}
		s.CR2 = f.cr2
		if err := cpu.SetSregs(&s); err != nil {
			return err
		}
	}
	e, err := cpu.Events()
	if err != nil {
		return err
	}
	e.Exception.Injected = 1
	e.Exception.Pending = 0
	e.Exception.Nr = f.vector
	e.Exception.HasErrorCode = 0
	e.Exception.ErrorCode = 0
	if f.hasCode {
		e.Exception.HasErrorCode = 1
		e.Exception.ErrorCode = f.code
	}
	return cpu.SetEvents(&e)
}

// gpr returns the general register with the number that instructions use.
func gpr(r *kvm.Regs, n int) *uint64 {
	switch n & 15 {
	case 0:
		return &r.RAX
	case 1:
		return &r.RCX
	case 2:
		return &r.RDX
	case 3:
		return &r.RBX
	case 4:
		return &r.RSP
	case 5:
		return &r.RBP
	case 6:
		return &r.RSI
	case 7:
		return &r.RDI
	case 8:
		return &r.R8
	case 9:
		return &r.R9
	case 10:
		return &r.R10
	case 11:
		return &r.R11
	case 12:
		return &r.R12
	case 13:
		return &r.R13
	case 14:
		return &r.R14
	}
	return &r.R15
}

// canonical says whether a linear address can be one, with 57 bits if la57.
func canonical(addr uint64, la57 bool) bool {
	shift := 16
	if la57 {
		shift = 7
	}
	return uint64(int64(addr<<shift)>>shift) == addr
}
