package template

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what of the host a saved VM depends on. Restoring compares in
// earnest, CPUID leaf by leaf; this is for a clear word before anything starts.
type Host struct {
	Kernel   string // release and version, as uname -rv: KVM is part of it
	KVM      string // modules, with srcversion where there is one
	CPU      string // vendor, model and microcode
	Features string // hash of the CPU's flags
}

// ThisHost looks at the host.
func ThisHost() (Host, error) {
	var h Host
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return h, os.NewSyscallError("uname", err)
	}
	h.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
	h.KVM = kvmModules("/sys/module")
	// The first CPU's part, which is below 4 KiB, and not that of hundreds.
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return h, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 8<<10))
	if err != nil {
		return h, err
	}
	h.parseCPUInfo(string(data))
	return h, nil
}

func (h *Host) parseCPUInfo(text string) {
	var words []string
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			break // the next CPU
		}
		switch key, value := strings.TrimSpace(key), strings.TrimSpace(value); key {
		case "vendor_id", "model name":
			words = append(words, value)
		case "cpu family", "model", "stepping", "microcode":
			words = append(words, key+" "+value)
		case "flags":
			sum := sha256.Sum256([]byte(value))
			h.Features = hex.EncodeToString(sum[:8])
		}
	}
	h.CPU = strings.Join(words, ", ")
}

// kvmModules names what is loaded. One that is not part of the kernel's tree
// has a version of its own.
func kvmModules(dir string) string {
	var found []string
	for _, m := range []string{"kvm", "kvm_intel", "kvm_amd", "kvm_pvm"} {
		if _, err := os.Stat(dir + "/" + m); err != nil {
			continue
		}
		if v, err := os.ReadFile(dir + "/" + m + "/srcversion"); err == nil {
			m += " " + strings.TrimSpace(string(v))
		}
		found = append(found, m)
	}
	return strings.Join(found, ", ")
}

func (h *Host) differs(now *Host) string {
	for _, f := range [][3]string{
		{"host kernel", h.Kernel, now.Kernel},
		{"KVM", h.KVM, now.KVM},
		{"host CPU", h.CPU, now.CPU},
		{"host CPU's flags", h.Features, now.Features},
	} {
		if f[1] != f[2] {
			return fmt.Sprintf("it was made with the %s %q, here is %q", f[0], f[1], f[2])
		}
	}
	return ""
}
