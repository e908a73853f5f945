package guest_test

import (
	"strings"
	"testing"

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
