// Package kvm is a typed view of the Linux KVM API
// (Documentation/virt/kvm/api.rst) and nothing else: no policy, no memory
// layout, no devices.
//
// Three types mirror the three levels of the API: System is /dev/kvm, VM one
// virtual machine, VCPU one virtual CPU. Numbers carry the names of api.rst and
// <linux/kvm.h>; a test compares them and the layout of every struct with the
// header of the machine that runs it.
//
// A VCPU belongs to one goroutine, which is locked to its thread and calls
// Attach. Only that goroutine calls Run and the state methods. Kick is for all
// others: it makes the current or the next Run return ExitIntr.
//
//	sys, err := kvm.Open()
//	vm, err := sys.CreateVM()
//	err = vm.SetMemoryRegion(kvm.MemoryRegion{Host: ram})
//	cpu, err := vm.CreateVCPU(0)
//	for {
//		exit, err := cpu.Run()
//		switch exit.Reason { ... }
//	}
package kvm
