// Command count-boot prints how many instructions a boot costs from the
// kernel's entry to the agent's hello. Run it at the root of the repository:
//
//	go run ./guest/cmd/count-boot             # kernel and agent, with either transport
//	go run ./guest/cmd/count-boot -hello      # kernel and the smallest Go init
//	go run ./guest/cmd/count-boot -profile 60 # where they go, by function
//	go run ./guest/cmd/count-boot -callers "memset_orig strlen" # on whose behalf
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/lucid-containers/lucid/guest/countboot"
	"github.com/lucid-containers/lucid/guest/initramfs"
)

func main() {
	var (
		c       countboot.Config
		hello   = flag.Bool("hello", false, "boot the smallest Go init instead of the agent")
		profile = flag.Int("profile", 0, "print the `N` dearest functions")
		callers = flag.String("callers", "", "say who calls these `FUNCTIONS`, and how much of their cost is whose")
		more    = flag.String("append", "", "further kernel parameters")
		limit   = flag.Uint64("max", 0, "fail when a boot takes more instructions than this")
		verbose = flag.Bool("v", false, "show the guest's console")
	)
	flag.StringVar(&c.Kernel, "kernel", "guest/out/vmlinux", "kernel")
	flag.StringVar(&c.Map, "map", "guest/out/System.map", "the kernel's System.map")
	flag.StringVar(&c.Initrd, "initrd", "guest/out/initramfs.cpio", "initramfs")
	flag.IntVar(&c.Memory, "m", 128, "memory in MiB")
	flag.IntVar(&c.CPUs, "smp", 1, "vCPUs")
	flag.BoolVar(&c.Serial, "serial", false, "only the serial transport")
	flag.StringVar(&c.Share, "share", "", "directory behind the 9p device (default an empty one)")
	flag.Parse()
	c.Append = strings.Fields(*more)
	if *verbose {
		c.Log = os.Stderr
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, c, *hello, *profile, strings.Fields(*callers), *limit); err != nil {
		fmt.Fprintln(os.Stderr, "count-boot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c countboot.Config, hello bool, profile int, callers []string, limit uint64) error {
	if hello {
		dir, err := os.MkdirTemp("", "count-boot-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if c.Initrd, err = helloInitramfs(ctx, dir); err != nil {
			return err
		}
	}
	if profile > 0 || len(callers) > 0 {
		return printProfile(ctx, c, profile, callers)
	}
	if hello {
		return count(ctx, c, limit, "from the kernel's entry to the report of a Go program")
	}
	if !c.Serial {
		if err := count(ctx, c, limit, "from the kernel's entry to the agent's dial of vsock, which QEMU does not have"); err != nil {
			return err
		}
	}
	c.Serial = true
	return count(ctx, c, limit, "from the kernel's entry to the arrival of the agent's hello over virtio-serial")
}

func count(ctx context.Context, c countboot.Config, limit uint64, what string) error {
	r, err := countboot.Count(ctx, c)
	if err != nil {
		return err
	}
	if c.Serial && r.Hello == nil {
		return errors.New("the guest reported, but no hello has arrived")
	}
	fmt.Printf("%d instructions (%.2f M) %s; the firmware's %d are not in it\n", r.Boot, float64(r.Boot)/1e6, what, r.Firmware)
	if limit > 0 && r.Boot > limit {
		return fmt.Errorf("%d instructions are more than the allowed %d", r.Boot, limit)
	}
	return nil
}

func helloInitramfs(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "init")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./guest/cmd/hello-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of hello-init: %w: %s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	if err := initramfs.Write(&archive, initramfs.Agent(data)); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initramfs.cpio")
	return path, os.WriteFile(path, archive.Bytes(), 0o644)
}

func printProfile(ctx context.Context, c countboot.Config, n int, callers []string) error {
	costs, sum, err := countboot.Profile(ctx, c)
	if err != nil {
		return err
	}
	fmt.Printf("%d instructions executed\n", sum)
	for _, name := range callers {
		printCallers(costs, name)
	}
	if len(callers) > 0 {
		return nil
	}
	for _, table := range []struct {
		name string
		key  func(countboot.Cost) uint64
	}{
		{"by step of the boot", func(c countboot.Cost) uint64 { return c.Step }},
		{"by total", func(c countboot.Cost) uint64 { return c.Total }},
		{"by self", func(c countboot.Cost) uint64 { return c.Self }},
	} {
		slices.SortStableFunc(costs, func(a, b countboot.Cost) int { return cmp.Compare(table.key(b), table.key(a)) })
		fmt.Printf("\n%12s %12s %12s %8s  %s\n", "step", "total", "self", "calls", table.name)
		for _, cost := range costs[:min(n, len(costs))] {
			fmt.Printf("%12d %12d %12d %8d  %s\n", cost.Step, cost.Total, cost.Self, cost.Calls, cost.Name)
		}
	}
	return nil
}

func printCallers(costs []countboot.Cost, name string) {
	for _, c := range costs {
		if c.Name != name {
			continue
		}
		fmt.Printf("\n%12d %8d  %s, called by\n", c.Self, c.Calls, c.Name)
		const most = 25
		for i, caller := range slices.SortedFunc(maps.Keys(c.From), func(a, b string) int { return cmp.Compare(c.From[b], c.From[a]) }) {
			if i == most {
				break
			}
			fmt.Printf("%12d           %s\n", c.From[caller], caller)
		}
	}
}
