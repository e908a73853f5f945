package sandbox

import (
	"github.com/lucid-containers/lucid/kvm"
)

// earlyVM is the KVM VM on its way. KVM_CREATE_VM starts a kernel thread and waits for
// RCU grace periods, 10 ms and more; meanwhile the process reads what the VM is for.
type earlyVM struct {
	sys  *kvm.System
	err  error // why there is no /dev/kvm
	made chan madeVM
}

type madeVM struct {
	vm  *kvm.VM
	err error
}

// startVM begins to make the VM. It ends with the process if nobody waits for it.
func startVM() *earlyVM {
	e := &earlyVM{made: make(chan madeVM, 1)}
	if e.sys, e.err = kvm.Open(); e.err == nil {
		go e.routineCreate()
	}
	return e
}

func (e *earlyVM) routineCreate() {
	vm, err := e.sys.CreateVM()
	e.made <- madeVM{vm, err}
}

// wait returns the VM. It is called once.
func (e *earlyVM) wait() (*kvm.VM, error) {
	m := <-e.made
	return m.vm, m.err
}
