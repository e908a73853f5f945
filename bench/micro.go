package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/internal/flatvm"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

const (
	microPort   = 0x80
	microWindow = 0xd0000050 // outside memory: a notify register as virtio-mmio has it
	microRounds = 5000
)

// The loops: ECX rounds, then OUT to microPort+1, which ends the measurement.
var (
	loopEnd  = []byte{0x49, 0x75, 0, 0xe6, microPort + 1, 0xf4} // dec ecx; jnz …; out 0x81, al; hlt
	loopPIO  = []byte{0xe6, microPort}                          // out 0x80, al
	loopMMIO = []byte{0xa3, 0x50, 0x00, 0x00, 0xd0}             // mov [0xd0000050], eax
	loopNone = []byte{}                                         // dec and jnz alone
	loops    = []struct {
		metric  string
		body    []byte
		ioevent bool
		rounds  uint64
	}{
		{"two instructions of guest kernel code", loopNone, false, 100 * microRounds},
		{"exit to user space, port write", loopPIO, false, microRounds},
		{"exit to user space, MMIO write (notify without ioeventfd)", loopMMIO, false, microRounds},
		{"MMIO write taken by ioeventfd", loopMMIO, true, microRounds},
	}
)

// micro measures this KVM.
func micro(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	if err := needKVM(); err != nil {
		err = c.skipOr("KVM", err)
		return c.results, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := w.runs(10)
	for _, l := range loops {
		w.progress("micro: %s", l.metric)
		for range w.rounds(n) {
			took, err := microRun(l.body, l.ioevent, l.rounds)
			if err != nil {
				return c.results, fmt.Errorf("%s: %w", l.metric, err)
			}
			c.add(Result{Subject: "KVM", Metric: l.metric, Unit: "µs", Better: Less}, float64(took.Nanoseconds())/1000/float64(l.rounds))
			if ctx.Err() != nil {
				return c.results, ctx.Err()
			}
		}
	}
	return c.results, microAssist(ctx, w, &c, n)
}

// assistLoops are things that some back-ends do only with our help (vmm/assist).
var assistLoops = []struct {
	metric string
	loop   assist.Loop
	needed func(assist.Needs) bool
	rounds uint32 // few: an assist takes 50 to 300 µs
}{
	{"POPCNT in guest kernel code, with three more instructions", assist.InstructionLoop, func(n assist.Needs) bool { return n.Emulation }, 500},
	{"SYSCALL and SYSRET", assist.SyscallLoop, func(n assist.Needs) bool { return n.Syscall }, 500},
}

// microAssist measures what is an assist on a KVM that interprets guest kernels, and one or two instructions on others.
func microAssist(ctx context.Context, w *World, c *collector, n int) error {
	sys, err := kvm.Open()
	if err != nil {
		return err
	}
	defer sys.Close()
	needs, err := assist.Probe(sys)
	if err != nil {
		return err
	}
	for _, l := range assistLoops {
		metric, rounds := l.metric+", by the CPU itself", l.rounds
		if l.needed(needs) {
			metric = l.metric + ", assisted"
		} else {
			rounds *= 100
		}
		w.progress("micro: %s", metric)
		for range w.rounds(n) {
			took, err := assist.Cost(sys, needs, l.loop, rounds)
			if err != nil {
				return fmt.Errorf("%s: %w", metric, err)
			}
			c.add(Result{Subject: "KVM", Metric: metric, Unit: "µs", Better: Less}, took.Seconds()*1e6)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// microRun makes a VM for one loop and times it.
func microRun(body []byte, ioevent bool, rounds uint64) (time.Duration, error) {
	sys, err := kvm.Open()
	if err != nil {
		return 0, err
	}
	defer sys.Close()
	code := append(append([]byte{}, body...), loopEnd...)
	code[len(body)+2] = byte(-(len(body) + 3)) // jnz to the beginning
	vm, err := flatvm.New(sys, code)
	if err != nil {
		return 0, err
	}
	defer vm.Close()
	if ioevent {
		fd, err := eventfd.New()
		if err != nil {
			return 0, err
		}
		defer fd.Close()
		if err := vm.Machine.IOEventFD(kvm.IOEvent{Addr: microWindow, Len: 4, FD: fd.FD()}); err != nil {
			return 0, err
		}
	}
	if err := vm.Enter(rounds); err != nil {
		return 0, err
	}
	begin := time.Now()
	for {
		exit, err := vm.CPU.Run()
		switch {
		case err != nil:
			return 0, err
		case exit.Reason == kvm.ExitIntr, exit.Reason == kvm.ExitMMIO, exit.Reason == kvm.ExitIO && exit.IO.Port == microPort:
		case exit.Reason == kvm.ExitIO && exit.IO.Port == microPort+1:
			return time.Since(begin), nil
		default:
			return 0, fmt.Errorf("ended with %s", exit.Reason)
		}
		if time.Since(begin) > time.Minute {
			return 0, errors.New("does not end")
		}
	}
}
