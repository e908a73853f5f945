package guest

// Parameter is one word of the kernel command line and the reason for it.
type Parameter struct {
	Word string
	Note string
}

// Parameters is the base command line of every sandbox. The names are those of
// the kernel's Documentation/admin-guide/kernel-parameters.txt.
func Parameters() []Parameter {
	return []Parameter{
		{"console=hvc0", "virtio console; there is no other"},
		{"quiet", "printing is the dearest thing a booting kernel does; a panic is printed all the same"},
		{"reboot=t", "a reboot is a triple fault, which KVM reports as KVM_EXIT_SHUTDOWN"},
		{"panic=-1", "a panic reboots at once, so ends the VM"},
		{"tsc=reliable", "no watchdog timer, which would wake an idle VM twice a second, and no test of the clock between vCPUs"},
		{"noreplace-smp", "leave LOCK prefixes alone on one vCPU: patching them out costs 2.3 M instructions"},
		{"clearcpuid=erms,fsrm", "REP MOVSQ and STOSQ instead of MOVSB and STOSB: on software KVM an iteration each, on hardware no slower"},
	}
}

// Cmdline returns the words of [Parameters].
func Cmdline() []string {
	params := Parameters()
	words := make([]string, len(params))
	for i, p := range params {
		words[i] = p.Word
	}
	return words
}
