package hostcheck

import (
	"errors"
	"fmt"
	"time"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
)

// The measured guest: 32-bit protected mode without paging, as the kernel's
// entry is, at CPL 0.
const (
	speedMem  = 2 << 20
	speedGDT  = 0x1000
	speedCode = 0x2000
	speedPort = 0x80

	cr0PE, cr0ET   = 1 << 0, 1 << 4
	rflagsReserved = 1 << 1

	// loopInstructions per round: dec, jnz.
	loopInstructions = 2
)

// Rounds of the loop: few at first, for an interpreter (1.3 M instructions/s
// make 30 ms), then more until the time says something.
var speedRounds = []uint64{20_000, 200_000, 2_000_000, 20_000_000, 200_000_000}

const speedEnough = 50 * time.Millisecond

// speed measures instructions per second in guest kernel mode.
func speed(sys *kvm.System) (float64, error) {
	mem, err := guestmem.Alloc(speedMem)
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	vm, err := sys.CreateVM()
	if err != nil {
		return 0, err
	}
	defer vm.Close()
	// An identity map and a TSS are for Intel hosts without unrestricted guests.
	if err := errors.Join(vm.SetTSSAddr(0xfffbd000), vm.CreateIRQChip()); err != nil {
		return 0, err
	}
	if err := vm.SetMemoryRegion(kvm.MemoryRegion{Host: mem.Regions()[0].Host}); err != nil {
		return 0, err
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return 0, err
	}
	defer cpu.Close()
	if err := speedMemory(mem); err != nil {
		return 0, err
	}
	var rate float64
	for _, rounds := range speedRounds {
		took, err := speedRun(cpu, rounds)
		if err != nil {
			return 0, err
		}
		rate = float64(rounds*loopInstructions) / took.Seconds()
		if took >= speedEnough {
			break
		}
	}
	return rate, nil
}

func speedMemory(mem *guestmem.Memory) error {
	gdt := []uint64{0, 0x00cf9b000000ffff, 0x00cf93000000ffff} // flat code, flat data
	for i, d := range gdt {
		if err := mem.Store64(speedGDT+8*uint64(i), d); err != nil {
			return err
		}
	}
	// loop: dec ecx; jnz loop; out 0x80, al; hlt
	return mem.WriteAt([]byte{0x49, 0x75, 0xfd, 0xe6, speedPort, 0xf4}, speedCode)
}

// speedRun times one run of the loop.
func speedRun(cpu *kvm.VCPU, rounds uint64) (time.Duration, error) {
	// Let KVM finish the port write of the run before.
	cpu.ArmKick()
	if _, err := cpu.Run(); err != nil {
		return 0, err
	}
	cpu.ClearKick()
	s, err := cpu.Sregs()
	if err != nil {
		return 0, err
	}
	flat := func(selector uint16, typ uint8) kvm.Segment {
		return kvm.Segment{Limit: 0xffffffff, Selector: selector, Type: typ, Present: 1, DB: 1, S: 1, G: 1}
	}
	data := flat(0x10, 3)
	s.CS = flat(0x08, 11)
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.GDT = kvm.DTable{Base: speedGDT, Limit: 3*8 - 1}
	s.CR0, s.CR3, s.CR4, s.EFER = cr0PE|cr0ET, 0, 0, 0
	if err := cpu.SetSregs(&s); err != nil {
		return 0, err
	}
	if err := cpu.SetRegs(&kvm.Regs{RIP: speedCode, RCX: rounds, RFLAGS: rflagsReserved}); err != nil {
		return 0, err
	}
	begin := time.Now()
	for {
		exit, err := cpu.Run()
		took := time.Since(begin)
		switch {
		case err != nil:
			return 0, err
		case exit.Reason == kvm.ExitIntr: // the Go runtime's signals
		case exit.Reason == kvm.ExitIO && exit.IO.Port == speedPort:
			return took, nil
		default:
			return 0, fmt.Errorf("speed measurement ended with %s", exit.Reason)
		}
		if took > time.Minute {
			return 0, errors.New("speed measurement does not end")
		}
	}
}
