package guest

import (
	"strconv"
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
	{"clearcpuid=erms,fsrm", "REP MOVSQ and STOSQ instead of MOVSB and STOSB: on software KVM an iteration each, on hardware no slower"},
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

// TemplateWords returns what a kernel is told behind Cmdline that is to be saved with
// that many vCPUs and to go on with more of them, and with more memory. The struct
// pages of memory that is added lie in that memory itself: a guest of 128 MiB has no
// room for those of 16 GiB, and each of its pages that is touched is a fault.
func TemplateWords(vcpus int) []string {
	return []string{"maxcpus=" + strconv.Itoa(vcpus), "memory_hotplug.memmap_on_memory=force"}
}

// AgentWords returns what the agent is told behind Cmdline: for how many vCPUs
// it is and which transport it dials, "vsock" or "serial". Words without a dot
// are its environment. Its Go runtime need not look for CPUs, nor interrupt
// itself: it hardly computes.
func AgentWords(vcpus int, transport string) []string {
	return []string{"GOMAXPROCS=" + strconv.Itoa(vcpus), "GODEBUG=asyncpreemptoff=1", "lucid.transport=" + transport}
}
