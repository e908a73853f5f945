package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRehearsalProgram runs it here.
func TestRehearsalProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rehearse")
	if err := os.WriteFile(file, rehearsalProgram(), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(file).Output()
	if err != nil || string(out) != "." {
		t.Fatalf("%q, %v", out, err)
	}
}
