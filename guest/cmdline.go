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
		{"no_timer_check", "do not spend ticks on finding out whether the timer interrupt works"},
		{"tsc=reliable", "no watchdog and no synchronisation test of the clock between vCPUs"},
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
