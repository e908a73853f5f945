package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	if err := unix.Mount("containerd", "/var/lib", "tmpfs", 0, "mode=755"); err != nil {
		return os.NewSyscallError("mount /var/lib", err)
	}
	defer unix.Unmount("/var/lib", unix.MNT_DETACH)
	busybox := filepath.Join(bin, "busybox")
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox --list: %w", err)
	}
	// A registry on "localhost" is spoken to by HTTP.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	host := fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	r, list, err := images(host, busybox, strings.Fields(string(applets)))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: r}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	names := filepath.Join(os.TempDir(), "images.toml")
	if err := os.WriteFile(names, []byte(list), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "containerd-v2", "client.test"),
		append([]string{"-test.v", "-test.timeout=0", "-image-list", names, "-no-criu"}, args[1:]...)...)
	// Of two shims of one name the newer, containerd's own of this version, is found first.
	cmd.Env = append(os.Environ(), "TEST_RUNTIME="+args[0], "PATH="+strings.Join([]string{filepath.Join(bin, "containerd-v2"), bin, os.Getenv("PATH")}, ":"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
