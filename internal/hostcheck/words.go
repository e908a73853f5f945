package hostcheck

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/lucid-containers/lucid/kvm"
)

// Write says it in plain words.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "host:     Linux %s on %s\n", r.Kernel, cpu(r))
	if r.Err != nil {
		fmt.Fprintf(&b, "VMs:      no. %s\n", strings.ReplaceAll(r.Err.Error(), "\n", ": "))
		fmt.Fprintf(&b, "to do:    %s\n", r.advice())
	} else {
		fmt.Fprintf(&b, "VMs:      yes\n")
		fmt.Fprintf(&b, "back-end: %s\n", r.backend())
		fmt.Fprintf(&b, "assists:  %s\n", r.assists())
		fmt.Fprintf(&b, "speed:    %s\n", r.speedWords())
		if len(r.Missing) > 0 {
			fmt.Fprintf(&b, "without:  %s\n", missing(r.Missing))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cpu(r *Report) string {
	name := r.CPU
	if name == "" {
		name = "an unknown CPU"
	}
	if r.Guest {
		name += ", itself a virtual machine"
	}
	return name
}

func (r *Report) backend() string {
	switch {
	case r.Needs.Any():
		return "software KVM: it interprets the guest's kernel and runs the guest's programs natively" + with(r.Modules, "kvm_pvm")
	case r.Flag == "vmx":
		return "hardware KVM: Intel VT-x" + nested(r)
	case r.Flag == "svm":
		return "hardware KVM: AMD-V" + nested(r)
	default:
		return "a complete KVM without the CPU flags vmx or svm"
	}
}

func with(modules []string, name string) string {
	if slices.Contains(modules, name) {
		return " (module " + name + ")"
	}
	return ""
}

func nested(r *Report) string {
	if r.Guest {
		return ", nested"
	}
	return ""
}

func (r *Report) assists() string {
	if !r.Needs.Any() {
		return "none needed"
	}
	return "lucid finishes what this KVM does not: " + r.Needs.String()
}

// Speeds that tell the kinds of back-ends apart, in instructions per second.
const (
	speedNative   = 1e9
	speedEmulated = 2e7
)

func (r *Report) speedWords() string {
	text := fmt.Sprintf("%s instructions/s in guest kernel mode. ", amount(r.Speed))
	switch {
	case r.Speed >= speedNative:
		return text + "Expect a container to start in a fraction of a second and to run at the host's speed."
	case r.Speed >= speedEmulated:
		return text + "Expect a container to start in seconds: this host's CPU is emulated itself or very slow."
	default:
		return text + "Expect a container to start in a quarter of a minute, computing in it at the host's speed, " +
			"and system calls of it to take about a millisecond each."
	}
}

// amount rounds to two digits.
func amount(n float64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f G", n/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f M", n/1e6)
	default:
		return fmt.Sprintf("%.0f", n)
	}
}

func missing(list []kvm.Requirement) string {
	var out []string
	for _, m := range list {
		out = append(out, m.Name+" ("+m.Why+")")
	}
	return strings.Join(out, ", ")
}

// advice is what the reader can do.
func (r *Report) advice() string {
	switch {
	case errors.Is(r.Err, fs.ErrPermission):
		return "add yourself to the group that owns /dev/kvm (`sudo usermod -aG kvm $USER`, then log in anew), or run lucid as root"
	case errors.Is(r.Err, kvm.ErrNoKVM) && r.Flag == "vmx":
		return "`modprobe kvm_intel`; if that fails, enable VT-x in the firmware"
	case errors.Is(r.Err, kvm.ErrNoKVM) && r.Flag == "svm":
		return "`modprobe kvm_amd`; if that fails, enable SVM in the firmware"
	case errors.Is(r.Err, kvm.ErrNoKVM) && r.Guest:
		return "this host is a virtual machine without nested virtualization: enable that where it is run " +
			"(its CPU must show vmx or svm), or use a kernel with a software KVM (module kvm_pvm)"
	case errors.Is(r.Err, kvm.ErrNoKVM):
		return "enable virtualization (VT-x or SVM) in the firmware; a container must be given the device /dev/kvm"
	default:
		return "use a newer kernel, 5.10 or later, on an x86-64 CPU with virtualization"
	}
}
