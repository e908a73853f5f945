package vmm

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/kvm"
)

const dataAddr = 0x1100000 // in RAM, behind the program

func newEventFD(t testing.TB) *eventfd.FD {
	t.Helper()
	f, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// run waits for the VM with a limit that only a bug reaches.
func run(t testing.TB, vm *VM) (Exit, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return vm.Run(ctx)
}

func wantReason(t testing.TB, vm *VM, want Reason) {
	t.Helper()
	exit, err := run(t, vm)
	if err != nil || exit.Reason != want {
		t.Fatalf("VM ended with %+v, %v; want %s", exit, err, want)
	}
}

func TestKVMPortIO(t *testing.T) {
	ports := &recorder{}
	vm := testVM(t, Config{
		PIO: portBus(t, 0x3f0, 8, ports),
		Kernel: testProgram(t, program(
			movEAX(0x11223344), outEAX(0x3f0), outAL(0x3f2),
			inEAX(0x3f4), outEAX(0x3f0), // what the handler gave comes back
			inEAX(0x2f0), outEAX(0x3f0), // nobody there: all ones
			// mov $msg, %esi; mov $3, %ecx; mov $0x3f1, %edx; rep outsb
			imm(0xbe, dataAddr), imm(0xb9, 3), movDX(0x3f1), []byte{0xf3, 0x6e},
			powerOff())),
	})
	if err := vm.cfg.Memory.WriteAt([]byte("abc"), dataAddr); err != nil {
		t.Fatal(err)
	}
	wantReason(t, vm, ReasonShutdown)
	want := []string{
		"write 0x0 44 33 22 11", "write 0x2 44",
		"read 0x4 4", "write 0x0 04 05 06 07",
		"write 0x0 ff ff ff ff",
		"write 0x1 61", "write 0x1 62", "write 0x1 63",
	}
	if diff := cmp.Diff(want, ports.take()); diff != "" {
		t.Fatal(diff)
	}
	if n := vm.Stats().Exits["io"]; n < 7 {
		t.Fatalf("%d io exits counted", n)
	}
}

func TestKVMMMIO(t *testing.T) {
	dev, ports := &recorder{}, &recorder{}
	vm := testVM(t, Config{
		PIO:     portBus(t, 0x3f0, 8, ports),
		Devices: []Device{{Name: "test", Handler: dev, IRQ: newEventFD(t)}},
		Kernel: testProgram(t, program(
			writeTo(DeviceBase+0x10, 0x55667788),
			loadEAX(DeviceBase+0x20), outEAX(0x3f0),
			loadEAX(DeviceBase+0x800), outEAX(0x3f0), // behind the window
			powerOff())),
	})
	wantReason(t, vm, ReasonShutdown)
	if diff := cmp.Diff([]string{"write 0x10 88 77 66 55", "read 0x20 4"}, dev.take()); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff([]string{"write 0x0 20 21 22 23", "write 0x0 ff ff ff ff"}, ports.take()); diff != "" {
		t.Fatal(diff)
	}
}

// TestKVMIOEventFD: a write of a queue number to QueueNotify signals the kick of
// that queue and does not leave KVM_RUN; any other value goes to the device.
func TestKVMIOEventFD(t *testing.T) {
	dev := &recorder{}
	kicks := []*eventfd.FD{newEventFD(t), newEventFD(t)}
	vm := testVM(t, Config{
		Devices: []Device{{Name: "test", Handler: dev, Kicks: kicks, IRQ: newEventFD(t)}},
		Kernel: testProgram(t, program(
			writeTo(DeviceBase+queueNotify, 1),
			writeTo(DeviceBase+queueNotify, 7),
			powerOff())),
	})
	wantReason(t, vm, ReasonShutdown)
	if err := kicks[1].Wait(); err != nil {
		t.Fatal(err)
	}
	quiet := make(chan error, 1)
	go func() { quiet <- kicks[0].Wait() }()
	select {
	case err := <-quiet:
		t.Fatalf("queue 0 was kicked: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if diff := cmp.Diff([]string{"write 0x50 07 00 00 00"}, dev.take()); diff != "" {
		t.Fatal(diff)
	}
	if n := vm.Stats().Exits["mmio"]; n != 1 {
		t.Fatalf("%d mmio exits, want only that of the unknown queue", n)
	}
}

// TestKVMIRQFD: a signal of the IRQ eventfd reaches interrupt line 5. The PIC,
// which nobody has set up, keeps it as a request.
func TestKVMIRQFD(t *testing.T) {
	irq := newEventFD(t)
	vm := testVM(t, Config{
		Devices: []Device{{Name: "test", Handler: &recorder{}, IRQ: irq}},
		Kernel:  testProgram(t, spin()),
	})
	const irr = 1 // struct kvm_pic_state: last_irr, irr, ...
	pending := func() bool {
		chip, err := vm.vm.IRQChip(kvm.IRQChipPICMaster)
		if err != nil {
			t.Fatal(err)
		}
		return chip.State[irr]&(1<<FirstGSI) != 0
	}
	if pending() {
		t.Fatal("pending before the signal")
	}
	if err := irq.Signal(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); !pending(); { // the kernel does it in a work queue
		if time.Now().After(end) {
			t.Fatal("the interrupt does not come")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestKVMTripleFault(t *testing.T) {
	// lidt of a table of length 0, then xor %ecx, %ecx; div %ecx: nothing that a back-end may lack outside long mode.
	vm := testVM(t, Config{Kernel: testProgram(t, program([]byte{0x0f, 0x01, 0x1d}, []byte{0, 0, 0x10, 0x01}, []byte{0x31, 0xc9, 0xf7, 0xf1}))})
	wantReason(t, vm, ReasonReset)
	if n := vm.Stats().Exits["shutdown"]; n != 1 {
		t.Fatalf("%d shutdown exits", n)
	}
}

func TestKVMKeyboardReset(t *testing.T) {
	vm := testVM(t, Config{Kernel: testProgram(t, program(movEAX(resetValue), outAL(resetPort), spin()))})
	wantReason(t, vm, ReasonReset)
}

// TestKVMCrash: code where no memory is cannot run anywhere; the error names
// the place.
func TestKVMCrash(t *testing.T) {
	// mov $0xe0000000, %eax; jmp *%eax
	vm := testVM(t, Config{Assist: AssistOff, Kernel: testProgram(t, program(movEAX(0xe0000000), []byte{0xff, 0xe0}))})
	exit, err := run(t, vm)
	if exit.Reason != ReasonCrash || err == nil || !strings.Contains(err.Error(), "rip=0xe0000000") {
		t.Fatalf("VM ended with %+v, %v", exit, err)
	}
	t.Log(err)
	if strings.Contains(err.Error(), "\n") {
		t.Fatal("more than one line")
	}
}

// TestKVMHandlerPanic: a bug in a device fails the VM, loudly.
func TestKVMHandlerPanic(t *testing.T) {
	vm := testVM(t, Config{
		VCPUs:   2,
		Devices: []Device{{Name: "test", Handler: &recorder{boom: true}, IRQ: newEventFD(t)}},
		Kernel:  testProgram(t, program(writeTo(DeviceBase, 1), spin())),
	})
	exit, err := run(t, vm)
	if exit.Reason != ReasonCrash || err == nil || !strings.Contains(err.Error(), "panic: boom") {
		t.Fatalf("VM ended with %+v, %v", exit, err)
	}
}

// TestKVMStop: a busy guest is stopped from outside, by Stop and by context,
// and with vCPUs that wait for SIPI.
func TestKVMStop(t *testing.T) {
	for name, stop := range map[string]func(*VM, context.CancelFunc){
		"Stop":    func(vm *VM, _ context.CancelFunc) { vm.Stop() },
		"context": func(_ *VM, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			vm := testVM(t, Config{VCPUs: 4, Kernel: testProgram(t, incLoop(dataAddr))})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan Exit, 1)
			go func() {
				exit, err := vm.Run(ctx)
				if err != nil {
					t.Error(err)
				}
				done <- exit
			}()
			waitRunning(t, vm)
			begin := time.Now()
			stop(vm, cancel)
			select {
			case exit := <-done:
				t.Logf("stopped after %v", time.Since(begin))
				if exit.Reason != ReasonStopped {
					t.Fatalf("ended with %+v", exit)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("does not stop")
			}
			if _, err := vm.Run(ctx); err == nil {
				t.Fatal("a second Run worked")
			}
			if err := vm.Pause(); !errors.Is(err, ErrNotRunning) {
				t.Fatalf("Pause of a stopped VM: %v", err)
			}
		})
	}
}

func TestKVMStopBeforeRun(t *testing.T) {
	vm := testVM(t, Config{Kernel: testProgram(t, spin())})
	vm.Stop()
	wantReason(t, vm, ReasonStopped)
}

func counter(t testing.TB, vm *VM) uint32 {
	t.Helper()
	v, err := vm.cfg.Memory.Load32(dataAddr)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func waitRunning(t testing.TB, vm *VM) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); counter(t, vm) == 0; {
		if time.Now().After(end) {
			t.Fatal("the guest does not run")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestKVMPauseResume also measures the kick: Pause returns when the last vCPU
// has left a busy guest.
func TestKVMPauseResume(t *testing.T) {
	vm := testVM(t, Config{VCPUs: 2, Kernel: testProgram(t, incLoop(dataAddr))})
	done := make(chan error, 1)
	go func() {
		_, err := run(t, vm)
		done <- err
	}()
	waitRunning(t, vm)
	var took []time.Duration
	for range 20 {
		begin := time.Now()
		if err := vm.Pause(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
		before := counter(t, vm)
		time.Sleep(2 * time.Millisecond)
		if after := counter(t, vm); after != before {
			t.Fatalf("a paused guest counts from %d to %d", before, after)
		}
		if err := vm.Resume(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); counter(t, vm) == before; {
			if time.Now().After(end) {
				t.Fatal("does not resume")
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	slices.Sort(took)
	t.Logf("kick: median %v, longest %v", took[len(took)/2], took[len(took)-1])
	vm.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// numbers answers each read with the next number.
type numbers struct{ last atomic.Uint32 }

func (n *numbers) Read(_ uint64, p []byte) {
	binary.LittleEndian.PutUint32(p, n.last.Add(1))
}

func (n *numbers) Write(uint64, []byte) {}

// TestKVMPausedIO: a vCPU that is paused right after a port read has taken the
// value, so that its state can be saved.
func TestKVMPausedIO(t *testing.T) {
	ports := &numbers{}
	vm := testVM(t, Config{
		PIO: portBus(t, 0x3f0, 8, ports),
		// 1: in %dx, %eax; mov %eax, data; jmp 1b
		Kernel: testProgram(t, program(movDX(0x3f4), []byte{0xed}, storeEAX(dataAddr), []byte{0xeb, 0xf8})),
	})
	done := make(chan error, 1)
	go func() {
		_, err := run(t, vm)
		done <- err
	}()
	waitRunning(t, vm)
	for range 20 {
		if err := vm.Pause(); err != nil {
			t.Fatal(err)
		}
		regs, err := vm.vcpus[0].cpu.Regs()
		if err != nil {
			t.Fatal(err)
		}
		if want := ports.last.Load(); uint32(regs.RAX) != want {
			t.Fatalf("eax = %d in a paused guest, the port gave %d last", regs.RAX, want)
		}
		if err := vm.Resume(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	vm.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestKVMLateStop: Stop and Stats after Close do nothing.
func TestKVMLateStop(t *testing.T) {
	for range 5 {
		vm, err := New(Config{
			KVM: testKVM(t), Memory: testMemory(t, 32<<20), VCPUs: 2, Kernel: testProgram(t, spin()),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		if _, err := vm.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if err := vm.Close(); err != nil {
			t.Fatal(err)
		}
		vm.Stop()
		vm.Stats()
	}
}

func TestKVMCheck(t *testing.T) {
	sys := testKVM(t)
	for _, r := range sys.Missing() {
		t.Logf("missing: %s (%s), required %v", r.Name, r.Why, r.Required)
		if r.Required {
			t.Errorf("this KVM lacks %s", r.Name)
		}
	}
}
