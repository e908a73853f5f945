package countboot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lucid-containers/lucid/guest"
	"github.com/lucid-containers/lucid/guest/bootcount"
)

// Config is what to boot. The zero value of a field means its default.
type Config struct {
	Kernel string        // vmlinux
	Map    string        // its System.map
	Initrd string        // initramfs with an init that calls bootcount.Report
	Memory int           // MiB, default 128
	CPUs   int           // default 1
	Append []string      // further kernel parameters
	Share  string        // directory behind the 9p device, default an empty one
	Limit  time.Duration // of one QEMU run, default 10 minutes
	Log    io.Writer     // the guest's console, default none
}

// Result is the outcome of [Count], in instructions.
type Result struct {
	Firmware uint64 // until the kernel's entry
	Boot     uint64 // from there to the report
}

// qemuOnly are parameters that stand in for what KVM tells its guest and
// QEMU's interpreter does not: with kvm-clock and the TSC deadline timer the
// kernel calibrates neither clock.
var qemuOnly = []string{
	"tsc_early_khz=1000000", // -icount shift=0 makes one instruction a nanosecond
	"no_timer_check",        // KVM guests do not test the timer interrupt
	"nolapic_timer",         // use the PIT as it is, instead of measuring the APIC timer for 100 ms
}

// Count boots twice, the stub and the kernel.
func Count(ctx context.Context, c Config) (Result, error) {
	firmware, err := countFirmware(ctx, c)
	if err != nil {
		return Result{}, err
	}
	var tsc uint64
	err = c.boot(ctx, nil, func(line string) bool {
		_, number, ok := strings.Cut(line, bootcount.Prefix)
		if ok {
			tsc, err = strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
		return ok && err == nil
	})
	if err != nil {
		return Result{}, err
	}
	if tsc <= firmware {
		return Result{}, fmt.Errorf("countboot: the boot ended at %d, before the firmware did at %d", tsc, firmware)
	}
	return Result{Firmware: firmware, Boot: tsc - firmware}, nil
}

// countFirmware runs the stub in the very machine of the boot.
func countFirmware(ctx context.Context, c Config) (uint64, error) {
	dir, err := os.MkdirTemp("", "countboot-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	stub := filepath.Join(dir, "stub.elf")
	if err := os.WriteFile(stub, stubKernel(), 0o644); err != nil {
		return 0, err
	}
	c.Kernel = stub
	out := filepath.Join(dir, "counter")
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	cmd, err := c.qemu(ctx, dir, "-chardev", "file,id=dbg,path="+out, "-device", fmt.Sprintf("isa-debugcon,iobase=%#x,chardev=dbg", debugPort))
	if err != nil {
		return 0, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for {
		if b, err := os.ReadFile(out); err == nil && len(b) == 8 {
			return binary.LittleEndian.Uint64(b), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("countboot: the stub kernel did not report: %w: %s", ctx.Err(), stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// errNoReport says that the guest ended, or ran out of time, without a report.
var errNoReport = errors.New("countboot: the guest did not report")

// boot runs the kernel until done says so about a line of the console.
func (c Config) boot(ctx context.Context, extra []string, done func(line string) bool) error {
	dir, err := os.MkdirTemp("", "countboot-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	patched := filepath.Join(dir, "vmlinux")
	if err := patchKernel(c.Kernel, c.Map, patched); err != nil {
		return err
	}
	c.Kernel = patched
	cmd, err := c.qemu(ctx, dir, extra...)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("countboot: %w; try: apt-get install qemu-system-x86", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		if c.Log != nil {
			fmt.Fprintln(c.Log, lines.Text())
		}
		if done(lines.Text()) {
			return nil
		}
	}
	return fmt.Errorf("%w: %w %s", errNoReport, errors.Join(lines.Err(), ctx.Err()), stderr.String())
}

func (c Config) limit() time.Duration {
	if c.Limit == 0 {
		return 10 * time.Minute
	}
	return c.Limit
}

// qemu is the machine: the devices that a sandbox has, with an MP table from the
// firmware and the virtio devices on the command line. The RTC is there because
// the kernel waits a second for one that is missing; under KVM it asks
// kvm-clock instead.
func (c Config) qemu(ctx context.Context, dir string, extra ...string) (*exec.Cmd, error) {
	share := c.Share
	if share == "" {
		share = filepath.Join(dir, "share")
		if err := os.Mkdir(share, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	line := append(append(guest.Cmdline(), qemuOnly...), c.Append...)
	line = append(line, bootcount.Param)
	args := []string{
		"-M", "microvm,acpi=off,rtc=on,pic=on,pit=on,isa-serial=off,auto-kernel-cmdline=on",
		"-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max",
		// The same random numbers and the same date every time: addresses chosen
		// at random decide which page tables a program needs.
		"-seed", "1", "-rtc", "base=2025-01-01,clock=vm",
		"-m", strconv.Itoa(max(c.Memory, 0) + 128*boolInt(c.Memory == 0)), "-smp", strconv.Itoa(max(c.CPUs, 1)),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", c.Kernel, "-append", strings.Join(line, " "),
		"-chardev", "stdio,id=console,signal=off",
		"-device", "virtio-serial-device,max_ports=1", "-device", "virtconsole,chardev=console",
		"-fsdev", "local,id=files,security_model=none,readonly=on,path=" + share,
		"-device", "virtio-9p-device,fsdev=files,mount_tag=lucid",
		"-object", "rng-random,id=rng,filename=/dev/zero", "-device", "virtio-rng-device,rng=rng",
	}
	if c.Initrd != "" {
		args = append(args, "-initrd", c.Initrd)
	}
	return exec.CommandContext(ctx, "qemu-system-x86_64", append(args, extra...)...), nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
