package vmm

import (
	"time"

	"github.com/lucid-containers/lucid/kvm"
)

// Stats counts since New. Reading it does not disturb the guest.
type Stats struct {
	Exits   map[string]uint64 // by kvm.ExitReason, all vCPUs together
	Assists map[string]uint64 // by instruction; empty when none were needed
}

// Stats returns the counts so far. After Close the exits are gone.
func (vm *VM) Stats() Stats {
	s := Stats{Exits: map[string]uint64{}, Assists: map[string]uint64{}}
	vm.mu.Lock()
	vcpus := vm.vcpus
	vm.mu.Unlock()
	for _, v := range vcpus {
		for reason := range v.exits {
			if n := v.exits[reason].Load(); n > 0 {
				s.Exits[kvm.ExitReason(reason).String()] += n
			}
		}
	}
	if vm.assist != nil {
		s.Assists = vm.assist.Counts()
	}
	return s
}

// Marks are points in a VM's life, for start-up measurements.
type Marks struct {
	VMCreated   time.Time // KVM_CREATE_VM had returned
	KernelEntry time.Time // just before the first KVM_RUN; zero before Run
	Restored    time.Time // in place of KernelEntry for a VM that was saved
}

// Marks returns them.
func (vm *VM) Marks() Marks {
	m := Marks{VMCreated: vm.created}
	if t := vm.entered.Load(); t != nil {
		if vm.restored {
			m.Restored = *t
		} else {
			m.KernelEntry = *t
		}
	}
	return m
}
