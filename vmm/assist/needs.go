package assist

import "strings"

// Needs says what a back-end lacks.
type Needs struct {
	Emulation bool // instructions at CPL 0
	Syscall   bool // SYSCALL from CPL 3
}

// Any says whether there is anything to do.
func (n Needs) Any() bool { return n.Emulation || n.Syscall }

// String lists what is lacking, or says "nothing".
func (n Needs) String() string {
	var s []string
	if n.Emulation {
		s = append(s, "instructions of the guest kernel")
	}
	if n.Syscall {
		s = append(s, "SYSCALL from user mode")
	}
	if s == nil {
		return "nothing"
	}
	return strings.Join(s, ", ")
}

// clearCPUID are features that a guest kernel must not use on a back-end that
// interprets it. XSAVE itself must stay: user code sees AVX whatever the kernel
// believes, and a kernel that saves with FXSAVE loses the upper register
// halves at a context switch.
var clearCPUID = []string{
	"xsaves", "xsavec", // compacted format: not what KVM_GET_XSAVE speaks
	"xsaveopt",     // no gain when XSAVE is finished in user space
	"erms", "fsrm", // rep movsb and stosb cost one turn of the interpreter per byte
}

// Cmdline returns kernel parameters for a guest on such a back-end.
func (n Needs) Cmdline() []string {
	if !n.Emulation {
		return nil
	}
	return []string{"clearcpuid=" + strings.Join(clearCPUID, ",")}
}
