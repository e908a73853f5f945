package vmm

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

// vcpu is one virtual CPU and the goroutine that runs it.
//
//	          kick, goal run
//	        ┌──────────────┐
//	        ▼              │        goal pause          goal run
//	┌───► running ─────────┴──────► parked ──────┐
//	│        │ goal stop, or the VM ended        │
//	│        ▼                                   │
//	│     finished                               │
//	└────────────────────────────────────────────┘
type vcpu struct {
	vm     *VM
	cpu    *kvm.VCPU
	assist *assist.VCPU // nil: none needed

	// exits counts by reason. Only the goroutine of this vCPU adds.
	exits [kvm.NumExitReasons]atomic.Uint64
}

// state is one state of a vCPU: it runs until it knows the next one; nil ends.
type state func() state

// routineVCPU is the life of a vCPU's goroutine.
func (v *vcpu) routineVCPU() {
	// KVM ties a vCPU to the thread that runs it, and Kick signals that thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v.cpu.Attach()
	defer func() {
		v.cpu.Detach()
		v.vm.mu.Lock()
		v.vm.live--
		v.vm.moved.Broadcast()
		v.vm.mu.Unlock()
	}()
	defer func() {
		// A guest must not be able to make us panic. If it can all the same, its VM
		// ends with an error, and its owner can clean up after it.
		if p := recover(); p != nil {
			v.vm.crash(fmt.Errorf("vCPU %d: panic: %v\n%s", v.cpu.ID(), p, debug.Stack()))
		}
	}()
	for s := state(v.running); s != nil; {
		s = s()
	}
}

// running is in the guest, or handles one of its exits. A kick brings it back
// to the top.
func (v *vcpu) running() state {
	// Clear first, look second: who wants something stores the goal and kicks
	// afterwards.
	v.cpu.ClearKick()
	switch v.vm.goal.Load() {
	case goalStop:
		return nil
	case goalPause:
		return v.parked
	}
	if v.assist != nil {
		if err := v.assist.BeforeEntry(); err != nil {
			v.vm.crash(fmt.Errorf("vCPU %d: %w", v.cpu.ID(), err))
			return nil
		}
	}
	for {
		kicked, ok := v.step()
		if !ok {
			return nil
		}
		if kicked {
			return v.running
		}
	}
}

// parked waits for another goal. The way here is always a KVM_RUN that returned
// for a kick, and KVM finishes the I/O of the last exit before it looks at the
// kick: the registers are those after the instruction, good for a snapshot.
func (v *vcpu) parked() state {
	vm := v.vm
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.parked++
	vm.moved.Broadcast()
	for vm.goal.Load() == goalPause {
		vm.moved.Wait()
	}
	vm.parked--
	return v.running
}

// step enters the guest once and handles the exit. kicked says that nothing
// happened but a kick; ok is false when the VM has ended.
func (v *vcpu) step() (kicked, ok bool) {
	exit, err := v.cpu.Run()
	if err != nil {
		v.vm.crash(fmt.Errorf("vCPU %d: %w; %s", v.cpu.ID(), err, v.registers()))
		return false, false
	}
	v.exits[exit.Reason%kvm.NumExitReasons].Add(1)
	if exit.Reason == kvm.ExitIntr {
		return true, true
	}
	return false, v.handle(&exit)
}

// registers is one line about where the guest is, for error messages.
func (v *vcpu) registers() string {
	r, err := v.cpu.Regs()
	if err != nil {
		return "registers unknown: " + err.Error()
	}
	s, err := v.cpu.Sregs()
	if err != nil {
		return fmt.Sprintf("rip=%#x", r.RIP)
	}
	return fmt.Sprintf("rip=%#x rsp=%#x rflags=%#x cs=%#x cr0=%#x cr2=%#x cr3=%#x cr4=%#x efer=%#x rax=%#x rbx=%#x rcx=%#x rdx=%#x",
		r.RIP, r.RSP, r.RFLAGS, s.CS.Selector, s.CR0, s.CR2, s.CR3, s.CR4, s.EFER, r.RAX, r.RBX, r.RCX, r.RDX)
}
