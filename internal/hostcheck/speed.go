package hostcheck

import (
	"errors"
	"fmt"
	"time"

	"github.com/lucid-containers/lucid/internal/flatvm"
	"github.com/lucid-containers/lucid/kvm"
)

const (
	speedPort = 0x80

	// loopInstructions per round: dec, jnz.
	loopInstructions = 2
)

// speedLoop is: loop: dec ecx; jnz loop; out 0x80, al; hlt
var speedLoop = []byte{0x49, 0x75, 0xfd, 0xe6, speedPort, 0xf4}

// Rounds of the loop: few at first, for an interpreter (1.3 M instructions/s
// make 30 ms), then more until the time says something.
var speedRounds = []uint64{20_000, 200_000, 2_000_000, 20_000_000, 200_000_000}

const speedEnough = 50 * time.Millisecond

// speed measures instructions per second in guest kernel mode.
func speed(sys *kvm.System) (float64, error) {
	vm, err := flatvm.New(sys, speedLoop)
	if err != nil {
		return 0, err
	}
	defer vm.Close()
	var rate float64
	for _, rounds := range speedRounds {
		took, err := speedRun(vm, rounds)
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

// speedRun times one run of the loop.
func speedRun(vm *flatvm.VM, rounds uint64) (time.Duration, error) {
	// Let KVM finish the port write of the run before.
	vm.CPU.ArmKick()
	if _, err := vm.CPU.Run(); err != nil {
		return 0, err
	}
	vm.CPU.ClearKick()
	if err := vm.Enter(rounds); err != nil {
		return 0, err
	}
	begin := time.Now()
	for {
		exit, err := vm.CPU.Run()
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
