package vmm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Reason is why a VM ended.
type Reason string

// Reasons of Exit.
const (
	ReasonShutdown Reason = "shutdown"    // the guest powered off
	ReasonReset    Reason = "reset"       // the guest rebooted; a triple fault is one way
	ReasonStopped  Reason = "stopped"     // Stop was called or the context was done
	ReasonCrash    Reason = "guest-crash" // the guest or the back-end cannot go on; Run returns an error too
)

// Exit says how a VM ended.
type Exit struct {
	Reason Reason
	Detail string // for people
}

// ErrNotRunning says that the VM has ended.
var ErrNotRunning = errors.New("vmm: the VM does not run")

// Run starts the vCPUs and waits until the VM has ended and all of them have
// left the guest. It may be called once.
func (vm *VM) Run(ctx context.Context) (Exit, error) {
	vm.mu.Lock()
	if vm.ran {
		vm.mu.Unlock()
		return Exit{}, errors.New("vmm: Run was called before")
	}
	vm.ran = true
	vm.live = len(vm.vcpus)
	vm.mu.Unlock()

	defer context.AfterFunc(ctx, vm.Stop)()
	now := time.Now()
	vm.entered.Store(&now)
	var wg sync.WaitGroup
	for _, v := range vm.vcpus {
		wg.Go(v.routineVCPU)
	}
	wg.Wait()

	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.result == nil { // cannot happen: a vCPU returns only after end
		return Exit{Reason: ReasonCrash}, errors.New("vmm: the vCPUs returned without a reason")
	}
	return vm.result.exit, vm.result.err
}

// end records how the VM ended, if it is the first to say so, and makes all
// vCPUs leave.
func (vm *VM) end(exit Exit, err error) {
	vm.mu.Lock()
	if vm.result == nil {
		vm.result = &result{exit, err}
	}
	vm.setGoal(goalStop)
	vm.mu.Unlock()
	vm.kickAll()
}

// crash ends the VM with an error that says why.
func (vm *VM) crash(err error) {
	vm.end(Exit{Reason: ReasonCrash, Detail: err.Error()}, fmt.Errorf("vmm: %w", err))
}

// setGoal must be called with mu held.
func (vm *VM) setGoal(goal int32) {
	if vm.goal.Load() != goalStop { // there is no way back
		vm.goal.Store(goal)
	}
	vm.moved.Broadcast()
}

// kickAll makes every vCPU look at its goal. The goal is stored before. It may
// come after Close: a Stop by the context does not wait for Run's return.
func (vm *VM) kickAll() {
	vm.mu.Lock()
	vcpus := vm.vcpus
	vm.mu.Unlock()
	for _, v := range vcpus {
		v.cpu.Kick()
	}
}

// Stop ends the VM from outside. It does not wait; Run returns soon after.
func (vm *VM) Stop() { vm.end(Exit{Reason: ReasonStopped}, nil) }

// pauseWait bounds Pause.
const pauseWait = 2 * time.Second

// ErrHeldUp says that a vCPU does not leave a device: it waits for this host, for
// a disk that does not answer.
var ErrHeldUp = errors.New("vmm: a vCPU is held up by a device")

// Pause returns when no vCPU is in the guest or in a device handler. What the
// guest has asked for by kicks goes on in the devices. After ErrHeldUp the VM runs
// as before.
func (vm *VM) Pause() error {
	vm.mu.Lock()
	vm.setGoal(goalPause)
	vm.mu.Unlock()
	vm.kickAll()

	vm.mu.Lock()
	defer vm.mu.Unlock()
	late := false
	defer time.AfterFunc(pauseWait, func() {
		vm.mu.Lock()
		defer vm.mu.Unlock()
		late = true
		vm.moved.Broadcast()
	}).Stop()
	for vm.goal.Load() == goalPause && vm.parked < vm.live {
		if late {
			vm.setGoal(goalRun)
			return ErrHeldUp
		}
		vm.moved.Wait()
	}
	if vm.goal.Load() == goalStop {
		return ErrNotRunning
	}
	return nil
}

// Resume lets a paused VM go on.
func (vm *VM) Resume() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.setGoal(goalRun)
	if vm.goal.Load() == goalStop {
		return ErrNotRunning
	}
	return nil
}
