package assist

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/lucid-containers/lucid/kvm"
)

// Loop is a guest program that does one thing again and again.
type Loop struct {
	Name    string // of the count in VM.Counts, where the back-end needs the assist
	user    bool   // begins at CPL 3
	port    uint16 // where its end is told
	needed  func(Needs) bool
	program func(rounds uint32) map[uint64][]byte // code by address
}

// InstructionLoop does POPCNT in kernel mode, three more instructions with each.
var InstructionLoop = Loop{
	Name: "popcnt", port: probePortDone, needed: func(n Needs) bool { return n.Emulation },
	program: func(rounds uint32) map[uint64][]byte {
		return map[uint64][]byte{probeKCode: append(binary.LittleEndian.AppendUint32([]byte{0xb9}, rounds), // mov $n, %ecx
			0x31, 0xd2, // xor %edx, %edx
			0xf3, 0x48, 0x0f, 0xb8, 0xc3, // 1: popcnt %rbx, %rax
			0x01, 0xc2, // add %eax, %edx
			0xff, 0xc9, // dec %ecx
			0x75, 0xf5, // jnz 1b
			0xe6, probePortDone, 0xf4)} // out; hlt
	},
}

// SyscallLoop does SYSCALL in user mode and SYSRET. It ends with #UD.
var SyscallLoop = Loop{
	Name: "syscall", user: true, port: probePortFault, needed: func(n Needs) bool { return n.Syscall },
	program: func(rounds uint32) map[uint64][]byte {
		user := append(binary.LittleEndian.AppendUint32([]byte{0xbb}, rounds), // mov $n, %ebx
			0x31, 0xff, // xor %edi, %edi
			0x0f, 0x05, // 1: syscall
			0xff, 0xcb, // dec %ebx
			0x75, 0xfa, // jnz 1b
			0x0f, 0x0b) // ud2
		kernel := []byte{0xff, 0xc7, 0x48, 0x0f, 0x07} // inc %edi; sysretq
		return map[uint64][]byte{probeUCode: user, probeHandler: kernel}
	},
}

// Cost runs a loop of so many rounds in a VM of its own, with the assist that this back-end needs, and returns what one round takes.
func Cost(sys *kvm.System, needs Needs, l Loop, rounds uint32) (time.Duration, error) {
	p, err := newProbeVM(sys)
	if err != nil {
		return 0, err
	}
	defer p.close()
	exit, vm, took, err := p.loop(needs, l, rounds)
	if err != nil {
		return 0, err
	}
	if exit.Reason != kvm.ExitIO || exit.IO.Port != l.port {
		return 0, fmt.Errorf("the loop ended with %s", probeOutcome(exit))
	}
	if n := vm.Counts()[l.Name]; l.needed(needs) && n != uint64(rounds) {
		return 0, fmt.Errorf("%d of %d were assisted", n, rounds)
	}
	return took / time.Duration(rounds), nil
}

// loop runs l until it writes to a port.
func (p *probeVM) loop(needs Needs, l Loop, rounds uint32) (exit kvm.Exit, vm *VM, took time.Duration, err error) {
	for addr, code := range l.program(rounds) {
		if err := p.mem.WriteAt(code, addr); err != nil {
			return exit, nil, 0, err
		}
	}
	vm = New(Config{Needs: needs, Memory: p.mem, CPUID: p.leaves, Log: slog.New(slog.DiscardHandler), KickAll: func() {}})
	v := vm.VCPU(p.cpu)
	if err := probeStart(p.cpu, l.user); err != nil {
		return exit, nil, 0, err
	}
	begin := time.Now()
	for {
		if err := v.AfterExit(); err != nil {
			return exit, nil, 0, err
		}
		if err := v.BeforeEntry(); err != nil {
			return exit, nil, 0, err
		}
		if exit, err = p.cpu.Run(); err != nil {
			return exit, nil, 0, err
		}
		switch exit.Reason {
		case kvm.ExitIntr: // the Go runtime's signals
		case kvm.ExitIO:
			return exit, vm, time.Since(begin), nil
		default:
			handled, err := v.Exit(&exit)
			if err != nil {
				return exit, nil, 0, err
			}
			if !handled {
				return exit, nil, 0, fmt.Errorf("the loop ended with %s", probeOutcome(exit))
			}
		}
		if time.Since(begin) > time.Minute {
			return exit, nil, 0, fmt.Errorf("%d rounds of %s do not end", rounds, l.Name)
		}
	}
}
