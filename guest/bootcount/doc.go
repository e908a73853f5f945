// Package bootcount is the guest's half of `make count-boot`: it reads the time
// stamp counter and reports it on the console.
//
// Under QEMU's -icount shift=0 the counter is the number of instructions that
// the guest has executed (plus one per idle nanosecond), exactly; on a real KVM
// it is the time since the VM began. The agent does, right after it has sent
// its hello and only when [Param] is on the kernel command line:
//
//	bootcount.Report(os.Stderr)
//
// The package imports nothing, keeps no state and is safe for concurrent use.
package bootcount
