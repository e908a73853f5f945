package assist

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"golang.org/x/arch/x86/x86asm"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
)

// errUnknown says that the table has the opcode but not this form of it.
var errUnknown = errors.New("unknown instruction")

// Config is what a VM's assist works with. All fields are required.
type Config struct {
	Needs   Needs
	Memory  *guestmem.Memory
	CPUID   []kvm.CPUIDEntry // of the vCPUs, for the layout of the XSAVE area
	Log     *slog.Logger
	KickAll func() // makes every vCPU call BeforeEntry soon
}

// VM is what the vCPUs of one VM share.
type VM struct {
	cfg    Config
	layout layout
	gate   gate

	counts   []atomic.Uint64 // by index in table
	syscalls atomic.Uint64
	stepped  atomic.Uint64 // page faults that were none of our business
}

// New makes the shared part.
func New(cfg Config) *VM {
	return &VM{cfg: cfg, layout: newLayout(cfg.CPUID), counts: make([]atomic.Uint64, len(table))}
}

// Counts returns how often each thing was done.
func (vm *VM) Counts() map[string]uint64 {
	m := map[string]uint64{}
	for i := range vm.counts {
		if n := vm.counts[i].Load(); n > 0 {
			m[table[i].name] += n
		}
	}
	if n := vm.syscalls.Load(); n > 0 {
		m["syscall"] = n
	}
	if n := vm.stepped.Load(); n > 0 {
		m["page-fault-entry"] = n
	}
	return m
}

// VCPU is the assist of one vCPU.
type VCPU struct {
	vm    *VM
	cpu   CPU
	armed uint64 // where the breakpoint is; 0: none
}

// VCPU makes the part of one vCPU.
func (vm *VM) VCPU(cpu CPU) *VCPU { return &VCPU{vm: vm, cpu: cpu} }

// Exit looks at a KVM_EXIT_INTERNAL_ERROR or KVM_EXIT_DEBUG. It returns true
// when the guest can go on, false when the exit is not for this package, and
// an error when it is but nothing can be done.
func (v *VCPU) Exit(exit *kvm.Exit) (bool, error) {
	switch {
	case exit.Reason == kvm.ExitDebug && v.armed != 0:
		return true, v.debug(&exit.Debug)
	case exit.Reason == kvm.ExitInternalError && exit.Internal.Suberror == kvm.InternalErrorEmulation && v.vm.cfg.Needs.Emulation:
		if err := v.emulate(&exit.Internal); err != nil {
			return false, err
		}
		return true, v.AfterExit()
	}
	return false, nil
}

// emulate finishes the instruction at RIP.
func (v *VCPU) emulate(exit *kvm.InternalExit) error {
	o := op{cpu: v.cpu, vm: v.vm}
	var err error
	if o.regs, err = v.cpu.Regs(); err != nil {
		return err
	}
	if o.sregs, err = v.cpu.Sregs(); err != nil {
		return err
	}
	if o.sregs.CS.Selector&3 != 0 {
		// KVM_CAP_EXIT_ON_EMULATION_FAILURE brings failures of user code here as well.
		// Without it KVM gives them #UD and that is right: a process must neither end
		// the VM nor have its memory accesses done with the kernel's rights.
		return inject(v.cpu, errUD)
	}
	o.mem = space{mem: v.vm.cfg.Memory, s: &o.sregs}
	code, err := o.code(exit)
	if err != nil {
		return o.deliver(err, code)
	}
	if o.sregs.EFER&eferLMA == 0 || o.sregs.CS.L == 0 {
		return o.unknown(code)
	}
	o.in, err = decode(code)
	if err != nil {
		return o.unknown(code)
	}
	i := find(&o.in)
	if i < 0 {
		return o.unknown(code)
	}
	if err := table[i].run(&o); err != nil {
		return o.deliver(err, code)
	}
	v.vm.counts[i].Add(1)
	return o.finish()
}

// code returns the bytes at RIP: those that KVM saw, or what is in memory.
func (o *op) code(exit *kvm.InternalExit) ([]byte, error) {
	if exit.NData >= 3 && exit.Data[0]&kvm.EmulationFlagInstrBytes != 0 {
		var p []byte
		for _, word := range exit.Data[1:3] {
			for i := range 8 {
				p = append(p, byte(word>>(8*i)))
			}
		}
		// insn_size and then insn_bytes (struct kvm_run, emulation_failure).
		if n := int(p[0]); n > 0 && n <= maxInst {
			return p[1 : 1+n], nil
		}
	}
	// As many as there are: the instruction may be the last one of a page.
	var p [maxInst]byte
	rip := o.regs.RIP + o.sregs.CS.Base
	n := min(maxInst, pageSize-rip%pageSize)
	if err := o.mem.read(rip, p[:n]); err != nil {
		return nil, err
	}
	if n < maxInst && o.mem.read(rip+n, p[n:]) == nil {
		n = maxInst
	}
	return p[:n], nil
}

// finish stores what the instruction left in regs, and its trap.
func (o *op) finish() error {
	if !o.jumped {
		o.regs.RIP += uint64(o.in.n)
	}
	o.regs.RFLAGS &^= flagRF
	if err := o.cpu.SetRegs(&o.regs); err != nil {
		return err
	}
	if o.trap != nil {
		return inject(o.cpu, o.trap)
	}
	return nil
}

// deliver gives the guest the exception that err is, or explains err.
func (o *op) deliver(err error, code []byte) error {
	var f *fault
	switch {
	case errors.As(err, &f):
		return inject(o.cpu, f)
	case errors.Is(err, errUnknown):
		return o.unknown(code)
	}
	return fmt.Errorf("finish the guest's instruction %s at %#x: %w", name(code), o.regs.RIP, err)
}

// unknown is the error for an instruction that nobody can do.
func (o *op) unknown(code []byte) error {
	return fmt.Errorf("this KVM cannot run the guest kernel's instruction %s (bytes % x) at %#x, and lucid does not know it either; please report this line and the guest kernel's version",
		name(code), code, o.regs.RIP)
}

// name disassembles for error messages.
func name(code []byte) string {
	in, err := x86asm.Decode(code, 64)
	if err != nil {
		return "unknown"
	}
	return strings.ToLower(in.String())
}
