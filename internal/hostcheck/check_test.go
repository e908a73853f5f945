package hostcheck

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

func TestParseCPUInfo(t *testing.T) {
	for _, c := range []struct {
		name, text, cpu, flag string
		guest                 bool
	}{
		{"intel", "processor\t: 0\nmodel name\t: Xeon X\nflags\t\t: fpu vmx sse\nvmx flags\t: vnmi\n\nprocessor\t: 1\nflags : svm\n", "Xeon X", "vmx", false},
		{"amd nested", "model name\t: EPYC\nflags\t\t: fpu svm hypervisor\n", "EPYC", "svm", true},
		{"neither", "flags\t\t: fpu hypervisor mysvm svm_lock\n", "", "", true},
		{"empty", "", "", "", false},
	} {
		var r Report
		r.parseCPUInfo(c.text)
		if r.CPU != c.cpu || r.Flag != c.flag || r.Guest != c.guest {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func TestModules(t *testing.T) {
	dir := t.TempDir()
	for _, m := range []string{"kvm", "kvm_pvm", "ext4"} {
		if err := os.Mkdir(filepath.Join(dir, m), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(modules(dir), " "); got != "kvm kvm_pvm" {
		t.Errorf("%q", got)
	}
}

// TestWords: the reader learns whether, why not, and what to do.
func TestWords(t *testing.T) {
	gone := errors.Join(kvm.ErrNoKVM, &fs.PathError{Op: "open", Path: "/dev/kvm", Err: fs.ErrNotExist})
	for _, c := range []struct {
		name   string
		report Report
		want   []string
	}{
		{"hardware", Report{Flag: "vmx", Speed: 4e9}, []string{"VMs:      yes", "Intel VT-x", "none needed", "4.0 G instructions/s", "fraction of a second"}},
		{"nested", Report{Flag: "svm", Guest: true, Speed: 3e9}, []string{"AMD-V, nested", "itself a virtual machine"}},
		{"lab", Report{Flag: "svm", Guest: true, Speed: 7.8e8}, []string{"780.0 M", "start in seconds"}},
		{
			"software",
			Report{Modules: []string{"kvm", "kvm_pvm"}, Needs: assist.Needs{Emulation: true, Syscall: true}, Speed: 1.3e6},
			[]string{"software KVM", "(module kvm_pvm)", "SYSCALL from user mode", "1.3 M", "quarter of a minute"},
		},
		{"no device, intel", Report{Flag: "vmx", Err: gone}, []string{"VMs:      no.", "/dev/kvm", "modprobe kvm_intel"}},
		{"no device, amd", Report{Flag: "svm", Err: gone}, []string{"modprobe kvm_amd"}},
		{"no device, guest", Report{Guest: true, Err: gone}, []string{"without nested virtualization"}},
		{"no device, off", Report{Err: gone}, []string{"firmware"}},
		{"no permission", Report{Err: &fs.PathError{Op: "open", Path: "/dev/kvm", Err: fs.ErrPermission}}, []string{"VMs:      no.", "usermod -aG kvm"}},
		{"old", Report{Err: errors.Join(ErrUnsuitable, errors.New("it lacks X"))}, []string{"it lacks X", "newer kernel"}},
		{"optional", Report{Flag: "svm", Speed: 2e9, Missing: []kvm.Requirement{{Name: "KVM_CAP_X", Why: "snapshot"}}}, []string{"KVM_CAP_X (snapshot)"}},
	} {
		var b strings.Builder
		if err := c.report.Write(&b); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: %q is missing in\n%s", c.name, w, b.String())
			}
		}
	}
}

// TestKVMSpeed wants a KVM; the number must be one that some machine has.
func TestKVMSpeed(t *testing.T) {
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("%v (try: make lab CMD='go test ./internal/hostcheck')", err)
	}
	defer sys.Close()
	got, err := speed(sys)
	if err != nil {
		t.Fatal(err)
	}
	if got < 1e5 || got > 1e11 {
		t.Errorf("%g instructions/s", got)
	}
	t.Logf("%s instructions/s", amount(got))
}
