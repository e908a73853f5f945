package countboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lucid-containers/lucid/guest"
	"github.com/lucid-containers/lucid/guest/bootcount"
	"github.com/lucid-containers/lucid/internal/wire"
)

// Files in a run's directory that QEMU writes.
const (
	counterFile = "counter" // the stub's report
	controlFile = "control" // bytes of the control port
)

// qemuOnly are parameters that stand in for what KVM tells its guest and
// QEMU's interpreter does not: with kvm-clock and the TSC deadline timer the
// kernel calibrates neither clock.
var qemuOnly = []string{
	"tsc_early_khz=1000000", // -icount shift=0 makes one instruction a nanosecond
	"no_timer_check",        // KVM guests do not test the timer interrupt
	"nolapic_timer",         // use the PIT as it is, instead of measuring the APIC timer for 100 ms
}

// Where QEMU's microvm has its virtio-mmio windows, and the interrupt line of
// the first one (hw/i386/microvm.c, without ACPI).
const (
	virtioBase  = 0xfeb00000
	virtioSize  = 0x200
	virtioLine  = 5
	virtioCount = 3 // console, 9p, rng
)

func (c Config) memory() int {
	const usual = 128
	if c.Memory == 0 {
		return usual
	}
	return c.Memory
}

func (c Config) cpus() int { return max(c.CPUs, 1) }

// cmdline has the words that vmm and internal/sandbox give, in their order,
// then those of this package.
func (c Config) cmdline() string {
	var words []string
	for i := range virtioCount {
		words = append(words, fmt.Sprintf("virtio_mmio.device=%#x@%#x:%d", virtioSize, virtioBase+i*virtioSize, virtioLine+i))
	}
	words = append(words, guest.Cmdline()...)
	transport := "vsock"
	if c.Serial {
		transport = "serial"
	}
	words = append(words, guest.AgentWords(c.cpus(), transport)...)
	words = append(append(words, qemuOnly...), c.Append...)
	return strings.Join(append(words, bootcount.Param), " ")
}

// qemu is the machine: the devices that a sandbox has, at other addresses. The
// RTC is there because the kernel waits a second for one that is missing; under
// KVM it asks kvm-clock instead.
func (c Config) qemu(ctx context.Context, dir, kernel string, extra ...string) (*exec.Cmd, error) {
	share := c.Share
	if share == "" {
		share = filepath.Join(dir, "share")
		if err := os.Mkdir(share, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	bus := func(i int) string { return ",bus=virtio-mmio-bus." + strconv.Itoa(i) }
	args := []string{
		"-M", "microvm,acpi=off,rtc=on,pic=on,pit=on,isa-serial=off,auto-kernel-cmdline=off",
		"-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max",
		// The same random numbers and the same date every time: addresses chosen
		// at random decide which page tables a program needs.
		"-seed", "1", "-rtc", "base=2025-01-01,clock=vm",
		"-m", strconv.Itoa(c.memory()), "-smp", strconv.Itoa(c.cpus()),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", kernel,
		"-chardev", "file,id=counter,path=" + filepath.Join(dir, counterFile),
		"-device", fmt.Sprintf("isa-debugcon,iobase=%#x,chardev=counter", debugPort),
		"-fsdev", "local,id=files,security_model=none,readonly=on,path=" + share,
		"-device", "virtio-9p-device,fsdev=files,mount_tag=lucid" + bus(1),
		"-object", "rng-random,id=rng,filename=/dev/zero", "-device", "virtio-rng-device,rng=rng" + bus(2),
		"-chardev", "stdio,id=console,signal=off",
	}
	if c.Serial {
		args = append(args, "-device", "virtio-serial-device,max_ports=3"+bus(0), "-device", "virtconsole,chardev=console",
			"-chardev", "file,id=control,path="+filepath.Join(dir, controlFile),
			"-device", "virtserialport,chardev=control,name="+wire.ControlPortName,
			"-chardev", "null,id=streams", "-device", "virtserialport,chardev=streams,name="+wire.StreamPortName)
	} else {
		args = append(args, "-device", "virtio-serial-device,max_ports=1"+bus(0), "-device", "virtconsole,chardev=console")
	}
	return exec.CommandContext(ctx, "qemu-system-x86_64", append(args, extra...)...), nil
}
