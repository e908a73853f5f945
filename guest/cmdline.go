package guest

import (
	"strconv"
	"strings"
)

// Parameter is one word of the kernel command line and the reason for it.
type Parameter struct {
	Word string
	Note string
}

// Each word costs the guest some 30,000 instructions, for the kernel compares
// it with every parameter it knows, several times over. What can be said in the
// configuration is said there.
var parameters = []Parameter{
	{"console=hvc0", "virtio console; there is no other"},
	{"reboot=t", "a reboot is a triple fault, which KVM reports as KVM_EXIT_SHUTDOWN"},
	{"tsc=reliable", "no watchdog timer, which would wake an idle VM twice a second, and no test of the clock between vCPUs"},
	{"noreplace-smp", "leave LOCK prefixes alone on one vCPU: patching them out costs 2.3 M instructions"},
	{"rootfstype=ramfs", "for the initramfs: a page of it costs 400 instructions less to unpack than in tmpfs"},
	{clearCPUID + "erms,fsrm", "REP MOVSQ and STOSQ instead of MOVSB and STOSB: on software KVM an iteration each, on hardware no slower"},
}

// clearCPUID begins a parameter of which the kernel reads only the last one.
const clearCPUID = "clearcpuid="

// softwareCPUID are further features that a guest kernel on software KVM does
// better without. Programs still see them.
var softwareCPUID = []Parameter{
	{"smap", "the emulator lacks CLAC and STAC: an assist at every access to user memory"},
	{"popcnt", "the emulator lacks it; the kernel has a table for it"},
	{"xsaves", "XSAVE and XRSTOR are the two that the assist has to know"},
	{"xsavec", "as above"},
	{"xsaveopt", "as above"},
}

// Parameters is the base command line of every sandbox. The names are those of
// the kernel's Documentation/admin-guide/kernel-parameters.txt.
func Parameters() []Parameter { return append([]Parameter(nil), parameters...) }

// Cmdline returns the words of [Parameters].
func Cmdline() []string {
	words := make([]string, len(parameters))
	for i, p := range parameters {
		words[i] = p.Word
	}
	return words
}

// SoftwareCmdline is Cmdline for a KVM that interprets the guest's kernel.
// Clearing XSAVE itself is not an option: user code uses AVX whatever the
// kernel believes, and would lose registers at a context switch.
func SoftwareCmdline() []string {
	words := Cmdline()
	for i, w := range words {
		if strings.HasPrefix(w, clearCPUID) {
			for _, p := range softwareCPUID {
				w += "," + p.Word
			}
			words[i] = w
		}
	}
	return words
}

// AgentWords returns what the agent is told behind Cmdline: for how many vCPUs
// it is and which transport it dials, "vsock" or "serial". Words without a dot
// are its environment. Its Go runtime need not look for CPUs, nor interrupt
// itself: it hardly computes.
func AgentWords(vcpus int, transport string) []string {
	return []string{"GOMAXPROCS=" + strconv.Itoa(vcpus), "GODEBUG=asyncpreemptoff=1", "lucid.transport=" + transport}
}
