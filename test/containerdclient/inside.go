package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// runHere serves the images and runs the tests with the arguments: TEST_RUNTIME, and those of the test binary.
func runHere(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("-inside: no runtime")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Dir(self)
	// The overlayfs snapshotter wants no overlay below it. The tests remove their directory in there.
	if err := os.MkdirAll("/var/lib", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("containerd", "/var/lib", "tmpfs", 0, "mode=755"); err != nil {
		return os.NewSyscallError("mount /var/lib", err)
	}
	defer unix.Unmount("/var/lib", unix.MNT_DETACH)
	busybox := filepath.Join(bin, "busybox")
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox --list: %w", err)
	}
	r, err := images(busybox, strings.Fields(string(applets)))
	if err != nil {
		return err
	}
	p, err := newProxy()
	if err != nil {
		return err
	}
	address, err := serve(p, r)
	if err != nil {
		return err
	}
	authority := filepath.Join(os.TempDir(), "authority.pem")
	if err := os.WriteFile(authority, p.authority(), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "containerd-v2", "client.test"),
		append([]string{"-test.v", "-test.timeout=0", "-test.root", "-no-criu"}, args[1:]...)...)
	// Of two shims of one name the newer, containerd's own of this version, is found first.
	// Three tests call runc itself, or one with faults built in.
	flavor := "runc"
	if args[0] != runtimes[flavor] {
		flavor = "other"
	}
	cmd.Env = append(os.Environ(), "TEST_RUNTIME="+args[0], "RUNC_FLAVOR="+flavor, "HTTPS_PROXY="+address, "SSL_CERT_FILE="+authority, "PATH="+strings.Join([]string{filepath.Join(bin, "containerd-v2"), bin, os.Getenv("PATH")}, ":"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
