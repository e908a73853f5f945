package sandbox

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/vmm"
)

func TestProfile(t *testing.T) {
	dir := t.TempDir()
	p, err := startProfile(dir, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(vmm.Stats{Exits: map[string]uint64{"io": 3, "mmio": 9}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "c1.exits.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != "12 exits to user space, by reason" || !strings.Contains(lines[1], "75.0 %  mmio") || !strings.Contains(lines[2], "25.0 %  io") {
		t.Errorf("histogram:\n%s", text)
	}
	f, err := os.Open(filepath.Join(dir, "c1.cpu.pprof"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("the CPU profile is not in pprof's format: %v", err)
	}
	if data, err := io.ReadAll(z); err != nil || len(data) == 0 {
		t.Errorf("%d bytes of profile, %v", len(data), err)
	}
}

func TestProfileDirMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not-there")
	if _, err := startProfile(dir, "c1"); err == nil || !strings.Contains(err.Error(), "--profile") {
		t.Errorf("error %v, want one that names the flag", err)
	}
	if p, err := startProfile("", "c1"); p != nil || err != nil || p.stop(vmm.Stats{}) != nil {
		t.Errorf("no directory must be no profile: %v, %v", p, err)
	}
}
