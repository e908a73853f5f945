package assist

import (
	"slices"
	"strings"
)

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
	"xsaveopt",       // no gain when XSAVE is finished in user space
	"smap",           // STAC and CLAC around each access to user memory would be two exits
	"popcnt", "cx16", // the interpreter lacks them; the kernel has another way (each allocation of SLUB was an exit)
	"erms", "fsrm", // rep movsb and stosb cost one turn of the interpreter per byte
}

// tickStep makes the guest kernel of guest/kernel tick ten times a second instead
// of a hundred: a tick is thousands of instructions, and one came every 13,000.
// Another kernel takes it for a variable of init's environment.
const tickStep = "tick_step=10"

// Cmdline returns cmdline with what a guest on such a back-end needs. The kernel
// takes the last clearcpuid= it finds and no other, so those that are there
// become one with ours.
func (n Needs) Cmdline(cmdline string) string {
	if !n.Emulation {
		return cmdline
	}
	kernel, init, hasInit := strings.Cut(cmdline, " -- ")
	kernel, features := cutParameter(kernel, "clearcpuid=")
	for _, f := range clearCPUID {
		if !slices.Contains(features, f) {
			features = append(features, f)
		}
	}
	out := strings.TrimSpace("clearcpuid=" + strings.Join(features, ",") + " " + tickStep + " " + kernel)
	if hasInit {
		out += " -- " + init
	}
	return out
}

// cutParameter takes every word with the prefix out of a command line and
// returns what they list. The rest keeps its spaces, which may be in quotes.
func cutParameter(cmdline, prefix string) (rest string, values []string) {
	for {
		i := strings.Index(" "+cmdline, " "+prefix)
		if i < 0 {
			return cmdline, values
		}
		word, after, _ := strings.Cut(cmdline[i:], " ")
		values = append(values, strings.Split(word[len(prefix):], ",")...)
		cmdline = cmdline[:i] + after
	}
}
