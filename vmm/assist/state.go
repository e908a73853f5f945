package assist

import "github.com/lucid-containers/lucid/internal/vmstate"

// State is what a saved VM's assist knows of its guest.
type State struct {
	Needs   Needs
	Entry   uint64 // the guest's page-fault handler; 0: not known
	Settled bool   // a SYSCALL has come through Entry
}

// State returns it. Preconditions: the vCPUs stand still.
func (vm *VM) State() State {
	return State{Needs: vm.cfg.Needs, Entry: vm.gate.entry.Load(), Settled: vm.gate.settled.Load()}
}

// SetState is for a VM whose guest was saved elsewhere, before its vCPUs run.
// Each sets its breakpoint before it enters the guest. An address that is wrong
// can only make the guest stumble over its own code.
func (vm *VM) SetState(s State) {
	vm.gate.entry.Store(s.Entry)
	vm.gate.settled.Store(s.Settled)
}

// Encode appends the state to w.
func (s State) Encode(w *vmstate.Writer) {
	w.Bool(s.Needs.Emulation)
	w.Bool(s.Needs.Syscall)
	w.U64(s.Entry)
	w.Bool(s.Settled)
}

// DecodeState reads what Encode wrote; r has the error, if any.
func DecodeState(r *vmstate.Reader) (s State) {
	s.Needs.Emulation, s.Needs.Syscall = r.Bool(), r.Bool()
	s.Entry, s.Settled = r.U64(), r.Bool()
	return s
}
