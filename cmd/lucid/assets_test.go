package main

import (
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
	go func() { _, err := asset("kernel", fifo, "", kernelName); result <- err }()
	select {
	case err := <-result:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
	}
}
