// Run builds the end-to-end tests and runs them where there is a KVM: in the lab always, on this machine's /dev/kvm too
// when it has one (then only those named TestReal…: guest work is slow on software KVM). `make e2e` calls it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/rootfs"
	"github.com/lucid-containers/lucid/test/stage"
)

func main() {
	only := flag.String("run", "", "regular expression of the tests to run (go test -run)")
	where := flag.String("where", "all", "all, lab or kvm")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, *only, *where)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only, where string) error {
	tar, err := rootfs.Tar(ctx, rootfs.Userland, os.Stdout)
	if err != nil {
		return err
	}
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	if err := build(ctx, bin); err != nil {
		return err
	}
	copies, err := stage.Checkout("lucid-e2e-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copies)
	env := []string{"LUCID_BIN=" + filepath.Join(copies, "bin"), "LUCID_ROOTFS=" + tar}
	prog := filepath.Join(copies, "bin", "e2e.test")
	if where != "lab" {
		if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			kvm.Close()
			fmt.Println("e2e: on this machine's /dev/kvm")
			if err := test(ctx, env, prog, "-test.v", "-test.run", or(only, "^TestReal")); err != nil {
				return err
			}
		} else {
			fmt.Printf("e2e: %v: nothing was run on this machine's KVM, only in the lab\n", err)
			if where == "kvm" {
				return err
			}
		}
	}
	if where == "kvm" {
		return nil
	}
	lab := func(kernel, tests, skipped string) error {
		line := append(slices.Clone(env), prog, "-test.v", "-test.timeout=40m", "-test.run", "'"+tests+"'")
		if skipped != "" {
			line = append(line, "-test.skip", "'"+skipped+"'")
		}
		set := []string{"LAB_TIMEOUT=45m", "LAB_MEM=6144", "LAB_MEMFILES=" + copies}
		if kernel != "" {
			set = append(set, "LAB_KERNEL="+kernel)
		}
		return test(ctx, set, filepath.Join(copies, "bin", "lab"), strings.Join(line, " "))
	}
	fmt.Println("e2e: in the lab")
	if only != "" {
		return lab("", only, "")
	}
	if err := lab("", ".", slow); err != nil {
		return err
	}
	fmt.Println("e2e: in the lab, with a newer kernel")
	return lab(newKernel, newest, "")
}

// newKernel is the newest that Debian 12 has: its KVM maps pages before a guest touches them (KVM_PRE_FAULT_MEMORY, Linux
// 6.11), which the one that the lab boots otherwise cannot. The tests that run on it are newest.
const (
	newKernel = "linux-image-6.12-amd64"
	newest    = "^(TestTemplatePreFault|TestTemplateEcho|TestRealHello|TestTransports)$"
)

// slow are the tests that run only when they are named, as in `go run ./test/e2e/run -where lab -run TestDocker`: they
// take long, TestRealAVX needs vector registers that QEMU does not give a nested guest, and TestTemplatePreFault the newer kernel.
const slow = "^(TestDocker|TestCtr|TestPodman|TestShim|TestKillAnywhere|TestTarUsr|TestTwentyAtOnce|TestRealAVX|TestTemplateIdleMemory|TestTemplateMakerKilled|TestTemplatePreFault|TestTemplateCost|TestTemplateSoak|TestTemplateWriters|TestSystemd|TestTmux)"

func or(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// build makes the test binary and what the tests take into their containers.
func build(ctx context.Context, bin string) error {
	for _, c := range [][]string{
		{"go", "test", "-c", "-tags", "e2e", "-o", filepath.Join(bin, "e2e.test"), "./test/e2e"},
		{"go", "test", "-c", "-tags", "e2e", "-o", filepath.Join(bin, "inguest.test"), "./test/e2e/inguest"},
		{"gcc", "-O1", "-static", "-mavx", "-Wall", "-Werror", "-o", filepath.Join(bin, "avx"), "test/e2e/testdata/avx.c"},
	} {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(c, " "), err, out)
		}
	}
	for _, name := range []string{"hello", "less", "vim-tiny", "busybox-static"} {
		if err := download(ctx, bin, name, name+"_*.deb"); err != nil {
			return err
		}
	}
	return cloudKernel(ctx, bin)
}

// download fetches a Debian package into dir unless a file of the pattern is there.
func download(ctx context.Context, dir, name, pattern string) error {
	if found, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(found) > 0 {
		return err
	}
	cmd := exec.CommandContext(ctx, "apt-get", "download", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s (is apt-get update needed?): %w\n%s", name, err, out)
	}
	return nil
}

// cloudKernel puts Debian's stock cloud kernel, a bzImage, beside the binaries.
func cloudKernel(ctx context.Context, bin string) error {
	image := filepath.Join(bin, "vmlinuz-cloud")
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	dep, err := exec.CommandContext(ctx, "apt-cache", "depends", "linux-image-cloud-amd64").Output()
	if err != nil {
		return fmt.Errorf("apt-cache depends linux-image-cloud-amd64: %w", err)
	}
	name := regexp.MustCompile(`linux-image-[0-9]\S*-cloud-amd64`).FindString(string(dep))
	if err := download(ctx, bin, name, name+"_*.deb"); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(bin, name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("%d packages %s in %s", len(debs), name, bin)
	}
	sh := `dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards './boot/vmlinuz-*' >"$2.tmp" && mv "$2.tmp" "$2" && rm "$1"`
	if out, err := exec.CommandContext(ctx, "sh", "-c", sh, "sh", debs[0], image).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", debs[0], err, out)
	}
	return nil
}

// test runs a test program and fails also when it skipped a test or ran none: CI expects neither.
func test(ctx context.Context, env []string, name string, args ...string) error {
	var seen bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &seen), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	if n := strings.Count(seen.String(), "--- SKIP"); n > 0 {
		return fmt.Errorf("%d tests were skipped", n)
	}
	if !strings.Contains(seen.String(), "--- PASS") {
		return errors.New("no test ran")
	}
	return nil
}
