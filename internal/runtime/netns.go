package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci"
)

// startIn starts the sandbox process in the network namespace that the
// specification asks for: it has to be there from its first instruction,
// because hooks and callers look it up by the pid. The guest's network is
// another matter, inside the VM.
func startIn(cmd *exec.Cmd, host *oci.Host) error {
	switch {
	case host.NetNS != "":
		return startInPath(cmd, host.NetNS)
	case host.NewNetNS && os.Geteuid() == 0:
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	}
	// Another user cannot make one. The guest has its own kernel all the same.
	return cmd.Start()
}

// startInPath starts a process from a thread that has joined a namespace.
func startInPath(cmd *exec.Cmd, path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network namespace %s: %w", path, os.NewSyscallError("setns", err))
		}
		return cmd.Start()
	})
}

// onThread runs f on a thread that ends with it, so that nobody else gets one
// in the namespaces that f leaves it in. It is not the main thread, which
// would not end, and by whose namespaces /proc shows the process.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- onThread(f) // held here, the main thread runs nothing else
			return
		}
		result <- f()
	}()
	return <-result
}
