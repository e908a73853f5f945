package assets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A kernel that is no file is an error, and not waited for.
func TestKernelIsFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "vmlinux")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { _, err := Find(Kernel, fifo, ""); result <- err }()
	select {
	case err := <-result:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
	}
}

// TestAssets: a checkout and an installation are found; what is named wins.
func TestAssets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(Kernel, file, "/no/such"); err != nil || got != file {
		t.Errorf("named: %q, %v", got, err)
	}
	if got, err := Find(Kernel, "", file); err != nil || got != file {
		t.Errorf("config.json: %q, %v", got, err)
	}
	prefix := t.TempDir()
	for _, dir := range []string{"share/lucid", "guest/out"} { // the second wins
		path := filepath.Join(prefix, dir, Kernel.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := installed(Kernel, filepath.Join(prefix, "bin", "lucid")); err != nil || got != path {
			t.Errorf("%s: %q, %v", dir, got, err)
		}
	}
	if _, err := installed(Kernel, "/nowhere/bin/lucid"); err == nil || !strings.Contains(err.Error(), "--kernel") {
		t.Errorf("not there: %v", err)
	}
}
