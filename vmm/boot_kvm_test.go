package vmm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/rng"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// testKernel returns the kernel named by LUCID_TEST_KERNEL, or the one that
// guest/ builds.
func testKernel(t testing.TB) boot.Kernel {
	t.Helper()
	path := os.Getenv("LUCID_TEST_KERNEL")
	if path == "" {
		path = "../guest/out/vmlinux"
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs a guest kernel: %v; build it (see guest/), or set LUCID_TEST_KERNEL", err)
	}
	k, err := boot.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// initCode is a program for the guest: open /dev/kmsg, write "lucid init is up",
// reboot(LINUX_REBOOT_CMD_RESTART).
var initCode = []byte{
	0xb8, 0x02, 0x00, 0x00, 0x00, // mov $2, %eax (open)
	0x48, 0x8d, 0x3d, 0x36, 0x00, 0x00, 0x00, // lea path(%rip), %rdi
	0xbe, 0x01, 0x00, 0x00, 0x00, // mov $1, %esi (O_WRONLY)
	0x31, 0xd2, // xor %edx, %edx
	0x0f, 0x05, // syscall
	0x89, 0xc7, // mov %eax, %edi
	0xb8, 0x01, 0x00, 0x00, 0x00, // mov $1, %eax (write)
	0x48, 0x8d, 0x35, 0x29, 0x00, 0x00, 0x00, // lea msg(%rip), %rsi
	0xba, 0x10, 0x00, 0x00, 0x00, // mov $16, %edx
	0x0f, 0x05, // syscall
	0xb8, 0xa9, 0x00, 0x00, 0x00, // mov $169, %eax (reboot)
	0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov $LINUX_REBOOT_MAGIC1, %edi
	0xbe, 0x69, 0x19, 0x12, 0x28, // mov $LINUX_REBOOT_MAGIC2, %esi
	0xba, 0x67, 0x45, 0x23, 0x01, // mov $LINUX_REBOOT_CMD_RESTART, %edx
	0x0f, 0x05, // syscall
	0xeb, 0xfe, // jmp .
}

const initMessage = "lucid init is up"

// initELF is a static program of initCode.
func initELF() []byte {
	const base, start = 0x400000, 64 + 56
	code := program(initCode, []byte("/dev/kmsg\x00"), []byte(initMessage))
	le := binary.LittleEndian
	p := make([]byte, start)
	copy(p, "\x7fELF\x02\x01\x01")
	le.PutUint16(p[16:], 2)
	le.PutUint16(p[18:], 62)
	le.PutUint32(p[20:], 1)
	le.PutUint64(p[24:], base+start)
	le.PutUint64(p[32:], 64)
	le.PutUint16(p[52:], 64)
	le.PutUint16(p[54:], 56)
	le.PutUint16(p[56:], 1)
	h := p[64:]
	le.PutUint32(h, 1)     // PT_LOAD
	le.PutUint32(h[4:], 5) // read, execute
	le.PutUint64(h[16:], base)
	le.PutUint64(h[24:], base)
	le.PutUint64(h[32:], uint64(start+len(code)))
	le.PutUint64(h[40:], uint64(start+len(code)))
	le.PutUint64(h[48:], 0x1000)
	return append(p, code...)
}

// initrd is a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst)
// of /init and /dev/kmsg.
func initrd() []byte {
	var b bytes.Buffer
	add := func(name string, mode, major, minor int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
		pad := func() {
			for b.Len()%4 != 0 {
				b.WriteByte(0)
			}
		}
		pad()
		b.Write(data)
		pad()
	}
	add("dev", 0o40755, 0, 0, nil)
	add("dev/kmsg", 0o20600, 1, 11, nil)
	add("init", 0o100755, 0, 0, initELF())
	add("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}

// bootVM is a VM with the real kernel, initrd and a serial port.
func bootVM(t *testing.T, cfg Config, mib uint64) (*VM, *serial) {
	t.Helper()
	uart := &serial{}
	var pio bus.Bus
	if err := pio.Insert(0x3f8, 8, uart); err != nil {
		t.Fatal(err)
	}
	cfg.PIO = &pio
	cfg.Kernel = testKernel(t)
	if cfg.Memory == nil {
		cfg.Memory = testMemory(t, mib<<20)
	}
	archive := initrd()
	cfg.Initrd = io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive)))
	cfg.Cmdline = "earlyprintk=serial,ttyS0,115200,keep ignore_loglevel panic=-1 reboot=t tsc=reliable"
	return testVM(t, cfg), uart
}

func bootToInit(t *testing.T, cfg Config, mib uint64) (*VM, string) {
	t.Helper()
	testNative(t)
	vm, uart := bootVM(t, cfg, mib)
	begin := time.Now()
	exit, err := run(t, vm)
	t.Logf("%v after %v; %+v", exit, time.Since(begin).Round(time.Millisecond), vm.Stats())
	if err != nil || exit.Reason != ReasonReset || !strings.Contains(uart.String(), initMessage) {
		t.Fatalf("VM ended with %+v, %v; console:\n%s", exit, err, uart)
	}
	return vm, uart.String()
}

func TestKVMBootVCPUs(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			_, console := bootToInit(t, Config{VCPUs: n}, 128)
			if want := fmt.Sprintf("Brought up 1 node, %d CPU", n); !strings.Contains(console, want) {
				t.Fatalf("no %q in:\n%s", want, console)
			}
		})
	}
}

// TestKVMBootMemory: RAM goes on behind the hole.
func TestKVMBootMemory(t *testing.T) {
	_, console := bootToInit(t, Config{VCPUs: 1}, 4096)
	if !strings.Contains(console, "node   0: [mem 0x0000000100000000-0x000000013fffffff]") {
		t.Fatalf("RAM above 4 GiB is not known:\n%s", console)
	}
}

// TestKVMBootAssisted boots with the assist on where nothing needs it. The
// page-fault entry is found, and where hardware breakpoints work it is hit and
// stepped over at each fault.
func TestKVMBootAssisted(t *testing.T) {
	works := breakpointsWork(t)
	vm, _ := bootToInit(t, Config{VCPUs: 2, Assist: AssistOn}, 128)
	stats := vm.Stats()
	if entry := vm.assist.PageFaultEntry(); entry>>47 != 1<<17-1 {
		t.Fatalf("page-fault entry %#x is no kernel address", entry)
	}
	switch n := stats.Assists["page-fault-entry"]; {
	case works && n == 0:
		t.Fatal("no page fault came through the breakpoint")
	case !works:
		t.Log("hardware breakpoints do not fire on this KVM (QEMU's TCG ignores those of a nested guest): not tested here")
	}
}

// breakpointsWork runs two instructions with a breakpoint on the second.
func breakpointsWork(t *testing.T) bool {
	t.Helper()
	vm := testVM(t, Config{Assist: AssistOff, Kernel: testProgram(t, program([]byte{0x90, 0x90}, powerOff()))})
	d := kvm.GuestDebug{Control: kvm.GuestDebugEnable | kvm.GuestDebugUseHWBP}
	d.DebugReg[0], d.DebugReg[7] = codeAddr+1, 1<<10|1<<1
	cpu := vm.vcpus[0].cpu
	if err := cpu.SetGuestDebug(&d); err != nil {
		t.Fatal(err)
	}
	for {
		exit, err := cpu.Run()
		if err != nil {
			t.Fatal(err)
		}
		if exit.Reason != kvm.ExitIntr {
			return exit.Reason == kvm.ExitDebug
		}
	}
}

// TestKVMStopDuringBoot stops at various moments, with vCPUs that wait for SIPI
// or are just starting.
func TestKVMStopDuringBoot(t *testing.T) {
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 400 * time.Millisecond, 1200 * time.Millisecond} {
		vm, _ := bootVM(t, Config{VCPUs: 4}, 128)
		ctx, cancel := context.WithTimeout(context.Background(), after)
		begin := time.Now()
		exit, err := vm.Run(ctx)
		cancel()
		if err != nil || exit.Reason != ReasonStopped {
			t.Fatalf("stopped after %v: %+v, %v", after, exit, err)
		}
		if over := time.Since(begin) - after; over > 5*time.Second {
			t.Fatalf("Stop took %v", over)
		}
	}
}

// watcher looks at what the driver writes to a transport. It hides whose the device is: our own kernel acknowledges
// no interrupt of ours.
type watcher struct {
	bus.Handler
	ready atomic.Bool // DRIVER_OK: it has its interrupt line
	acked atomic.Bool // InterruptACK: an interrupt has come
}

func (w *watcher) Read(off uint64, p []byte) {
	w.Handler.Read(off, p)
	if off == 0x0c { // VendorID
		clear(p)
	}
}

func (w *watcher) Write(off uint64, p []byte) {
	switch {
	case off == 0x70 && p[0]&4 != 0: // Status
		w.ready.Store(true)
	case off == 0x64: // InterruptACK
		w.acked.Store(true)
	}
	w.Handler.Write(off, p)
}

// TestKVMManyDevices: as many devices as there are interrupt lines, those above
// 15 too, which are no ISA lines. Each one answers the driver's first request,
// and the guest takes the interrupt.
func TestKVMManyDevices(t *testing.T) {
	testNative(t)
	mem := testMemory(t, 128<<20)
	var devices []Device
	var watchers []*watcher
	for i := range MaxDevices {
		transport, err := mmio.New(mmio.Config{Device: rng.New(), Mem: mem})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = transport.Close() })
		w := &watcher{Handler: transport}
		watchers = append(watchers, w)
		devices = append(devices, Device{Name: fmt.Sprint("rng", i), Handler: w, Kicks: transport.Kicks(), IRQ: transport.IRQ()})
	}
	_, console := bootToInit(t, Config{VCPUs: 1, Devices: devices, Memory: mem}, 0)
	for i, w := range watchers {
		if !w.ready.Load() || !w.acked.Load() {
			t.Errorf("device %d on line %d: driver ready %v, interrupt %v", i, FirstGSI+i, w.ready.Load(), w.acked.Load())
		}
	}
	if t.Failed() {
		t.Log(console)
	}
}
