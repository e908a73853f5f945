// Demo runs a command in a Debian container in a VM on this machine's /dev/kvm, from nothing: `make demo`. With -lab it
// does so in the lab (docs/lab.md), for machines without a /dev/kvm: `make demo-lab`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/rootfs"
)

const script = `. /etc/os-release; echo "container: $PRETTY_NAME"; echo "guest:     $(uname -a)"`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	run := demo
	if len(os.Args) == 2 && os.Args[1] == "-lab" {
		run = inLab
	}
	code, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		code = 1
	}
	os.Exit(code)
}

// inLab makes the root file system here, where that is quick, and runs this program in the lab.
func inLab(ctx context.Context) (int, error) {
	if _, err := rootfs.Tar(ctx, rootfs.Minimal, os.Stdout); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	return exitCode(command(ctx, "bin/lab", "--", self))
}

// command is a program that shares this one's files.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// exitCode runs cmd. That a program ends with a status is no error of ours.
func exitCode(cmd *exec.Cmd) (int, error) {
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func demo(ctx context.Context) (int, error) {
	lucid, err := filepath.Abs("bin/lucid")
	if err != nil {
		return 1, err
	}
	if code, err := exitCode(command(ctx, lucid, "check")); code != 0 || err != nil {
		return 1, errors.New("this host cannot run VMs (see above); `scripts/bootstrap demo-lab` does the same on an emulated one")
	}
	tar, err := rootfs.Tar(ctx, rootfs.Minimal, os.Stdout)
	if err != nil {
		return 1, err
	}
	bundle, err := os.MkdirTemp("", "lucid-demo-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(bundle)
	if err := makeBundle(ctx, bundle, tar, lucid); err != nil {
		return 1, err
	}
	id := fmt.Sprintf("demo-%d", os.Getpid())
	fmt.Printf("$ lucid --debug run --bundle %s %s\n", bundle, id)
	// Not ended with ctx: the container's own command forwards ^C to the container.
	return exitCode(command(context.WithoutCancel(ctx), lucid, "--debug", "run", "--bundle", bundle, id))
}

// makeBundle unpacks the root file system and has `lucid spec` write a config.json, as a user of runc would.
func makeBundle(ctx context.Context, bundle, tar, lucid string) error {
	root := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	fmt.Println("demo: unpacking Debian bookworm into", root)
	if err := rootfs.Unpack(ctx, tar, root); err != nil {
		return err
	}
	spec, err := rootfs.ReadConfig(ctx, lucid, bundle)
	if err != nil {
		return err
	}
	spec.Process.Terminal = false
	spec.Process.Args = []string{"sh", "-c", script}
	spec.Root.Readonly = false
	return rootfs.WriteConfig(bundle, spec)
}
