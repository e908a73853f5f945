package hostcheck

import (
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

// Report is what Gather found.
type Report struct {
	Kernel  string // of the host, as uname -r
	CPU     string // model name
	Flag    string // "vmx", "svm" or nothing
	Guest   bool   // this host is itself a VM
	Modules []string

	// Err is why no VM can run. What follows is then unknown.
	Err     error
	Missing []kvm.Requirement // optional ones that are not there
	Needs   assist.Needs
	// Speed is instructions per second of a loop in guest kernel mode.
	Speed float64
}

// ErrUnsuitable says that a KVM is there and lacks what lucid cannot do without.
var ErrUnsuitable = errors.New("this KVM is not enough")

// Gather asks the host.
func Gather() *Report {
	r := &Report{Modules: modules("/sys/module")}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		r.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		r.parseCPUInfo(string(data))
	}
	r.Err = r.ask()
	return r
}

// ask opens KVM and tries it.
func (r *Report) ask() error {
	sys, err := kvm.Open()
	if err != nil {
		return err
	}
	defer sys.Close()
	var lacking []string
	for _, m := range sys.Missing() {
		if m.Required {
			lacking = append(lacking, m.Name+" ("+m.Why+")")
		} else {
			r.Missing = append(r.Missing, m)
		}
	}
	if len(lacking) > 0 {
		return errors.Join(ErrUnsuitable, errors.New("it lacks "+strings.Join(lacking, ", ")))
	}
	if r.Needs, err = assist.Probe(sys); err != nil {
		return err
	}
	r.Speed, err = speed(sys)
	return err
}

// parseCPUInfo reads /proc/cpuinfo of the first CPU.
func (r *Report) parseCPUInfo(text string) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			if strings.TrimSpace(line) == "" {
				return // the next CPU
			}
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			r.CPU = value
		case "flags":
			flags := strings.Fields(value)
			for _, f := range []string{"vmx", "svm"} {
				if slices.Contains(flags, f) {
					r.Flag = f
				}
			}
			r.Guest = slices.Contains(flags, "hypervisor")
		}
	}
}

// modules lists the KVM modules that are loaded or built in.
func modules(sysModule string) []string {
	var found []string
	for _, m := range []string{"kvm", "kvm_intel", "kvm_amd", "kvm_pvm"} {
		if _, err := os.Stat(sysModule + "/" + m); err == nil {
			found = append(found, m)
		}
	}
	return found
}
