package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

// Descriptors that QEMU inherits: sockets for its character devices, then
// the initramfs. Nothing of a lab has a name in the file system, so two labs
// cannot meet and none leaves anything behind.
const firstFD = 3

// channels in the order of their descriptors.
const (
	chConsole = iota // the kernel's ttyS0
	chControl
	chStdin
	chStdout
	chStderr
	channels
)

const initrdFD = firstFD + channels

// disk is an image that QEMU maps into L1 as /dev/pmemN.
type disk struct {
	path string
	size int64
}

// qemuArgs builds QEMU's command line.
func qemuArgs(o *options, k *kernel, disks []disk) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-cpu", o.CPU, "-smp", strconv.Itoa(o.CPUs),
		"-kernel", k.Vmlinux, "-initrd", fmt.Sprintf("/proc/self/fd/%d", initrdFD),
		"-append", cmdline(o),
	}
	machine, mem := "q35,usb=off,smbus=off,sata=off", strconv.Itoa(o.MemMiB)+"M"
	if len(disks) > 0 {
		// An NVDIMM is memory to the guest: reading it is no I/O, which
		// LAB_ICOUNT needs, and the image is mapped, not copied. Private
		// mapping: no write of L1 reaches the cached file.
		machine += ",nvdimm=on"
		room := o.MemMiB + 1024
		for i, d := range disks {
			room += int(d.size >> 20)
			args = append(args,
				"-object", fmt.Sprintf("memory-backend-file,id=img%d,mem-path=%s,size=%d,share=off", i, comma(d.path), d.size),
				"-device", fmt.Sprintf("nvdimm,id=nv%d,memdev=img%d", i, i))
		}
		mem += fmt.Sprintf(",slots=%d,maxmem=%dM", len(disks), room)
	}
	args = append(args, "-M", machine, "-m", mem)
	if o.ICount {
		// One instruction is one nanosecond; idle time is skipped. The rest
		// takes away what would differ between two runs.
		args = append(args, "-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=off",
			"-rtc", "base=2024-01-01T00:00:00,clock=vm", "-seed", "1")
	} else {
		// With an HPET the PIT would have no interrupt: l1/heartbeat.go needs it.
		args = append(args, "-accel", "tcg,thread=multi,tb-size=512", "-rtc", "base=utc", "-no-hpet")
		args = append(args, share("root", "/", labproto.RootTag, true)...)
	}
	if o.Out != "" {
		args = append(args, share("out", o.Out, labproto.OutTag, false)...)
	}
	args = append(args, "-device", "virtio-serial-pci,id=vser,max_ports=8")
	ports := [channels]string{
		chControl: labproto.PortControl, chStdin: labproto.PortStdin, chStdout: labproto.PortStdout, chStderr: labproto.PortStderr,
	}
	for i := range channels {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=c%d,fd=%d", i, firstFD+i))
		if i == chConsole {
			args = append(args, "-device", "isa-serial,chardev=c0")
			continue
		}
		args = append(args, "-device", fmt.Sprintf("virtserialport,bus=vser.0,nr=%d,chardev=c%d,name=%s", i, i, ports[i]))
	}
	return args
}

// share exports a host directory over 9p. security_model=none: root in L1
// makes files as the user who runs the lab.
func share(id, path, tag string, readonly bool) []string {
	fsdev := fmt.Sprintf("local,id=%s,path=%s,security_model=none,multidevs=remap", id, comma(path))
	if readonly {
		fsdev += ",readonly=on"
	}
	return []string{"-fsdev", fsdev, "-device", fmt.Sprintf("virtio-9p-pci,fsdev=%s,mount_tag=%s", id, tag)}
}

// comma doubles commas, as QEMU's option values want it.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// cmdline is L1's kernel command line.
func cmdline(o *options) string {
	words := []string{
		"console=ttyS0", "panic=-1", "oops=panic", "reboot=t",
		// TCG's TSC is the host's and steady; without this the kernel
		// measures that for a second and may fall back to the slow HPET.
		"tsc=reliable", "clocksource=tsc", "no_timer_check",
		// A busy host stops vCPUs for a while; that is no lock-up.
		"nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1",
		// TCG keeps translated code by virtual address: with ASLR each process
		// translates libc anew (60 ms per exec instead of 20).
		"norandmaps", "nokaslr", "mitigations=off", "init_on_alloc=0", "random.trust_cpu=on", "audit=0", "apparmor=0",
		"8250.nr_uarts=1", "cryptomgr.notests", "preempt=none",
	}
	if !strings.Contains(o.Append, "cgroup_no_v1=") {
		words = append(words, "cgroup_no_v1=all")
	}
	if khz := tscKHz(); khz != 0 && !o.ICount {
		// On a busy host the kernel, which is stopped while it measures, gets this wrong: its clock was seen to run
		// twenty times too fast.
		words = append(words, fmt.Sprintf("tsc_early_khz=%d", khz))
	}
	if o.Verbose {
		words = append(words, "loglevel=7", "printk.time=1")
	} else {
		words = append(words, "loglevel=4")
	}
	if o.Append != "" {
		words = append(words, o.Append)
	}
	return strings.Join(words, " ")
}

// tscKHz is the frequency of the host's TSC, which is L1's, or 0. That of a host
// that changes its processors' is not in cpuinfo.
func tscKHz() int {
	if _, err := os.Stat("/sys/devices/system/cpu/cpu0/cpufreq"); err == nil {
		return 0
	}
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "cpu MHz" {
			continue
		}
		mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || mhz < 100 || mhz > 1e5 {
			return 0
		}
		return int(math.Round(mhz * 1000))
	}
	return 0
}
