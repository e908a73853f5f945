package guest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/guest"
)

func TestCmdlineWordsAreWords(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range guest.Parameters() {
		name, _, _ := strings.Cut(p.Word, "=")
		if len(strings.Fields(p.Word)) != 1 || strings.ContainsAny(p.Word, "\"'") {
			t.Errorf("%q is not one word", p.Word)
		}
		if seen[name] {
			t.Errorf("%s is given twice", name)
		}
		if p.Note == "" {
			t.Errorf("%s has no reason", p.Word)
		}
		seen[name] = true
	}
	for _, need := range []string{"console=hvc0", "reboot=t"} { // what the VMM relies on
		name, _, _ := strings.Cut(need, "=")
		if !seen[name] {
			t.Errorf("%s is missing", need)
		}
	}
}

func TestSoftwareCmdlineExtendsClearcpuid(t *testing.T) {
	base, software := guest.Cmdline(), guest.SoftwareCmdline()
	if len(base) != len(software) {
		t.Fatalf("%d words, want %d", len(software), len(base))
	}
	changed := 0
	for i := range base {
		if base[i] == software[i] {
			continue
		}
		changed++
		if !strings.HasPrefix(base[i], "clearcpuid=") || !strings.HasPrefix(software[i], base[i]+",smap,") {
			t.Errorf("%q became %q", base[i], software[i])
		}
		for _, f := range strings.Split(software[i], ",") {
			if f == "xsave" {
				t.Error("XSAVE is cleared: that corrupts AVX registers")
			}
		}
	}
	if changed != 1 {
		t.Errorf("%d words changed, want one", changed)
	}
	if diff := cmp.Diff(base, guest.Cmdline()); diff != "" {
		t.Errorf("SoftwareCmdline changed Cmdline (-before +after):\n%s", diff)
	}
}
