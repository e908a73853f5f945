package assist

import (
	"encoding/binary"

	"github.com/lucid-containers/lucid/kvm"
)

// op is one instruction while it is being finished. The functions in the table
// change regs, and memory or other state at once; the caller advances RIP and
// stores regs afterwards, or injects the fault that they return.
type op struct {
	cpu    CPU
	vm     *VM
	in     inst
	regs   kvm.Regs
	sregs  kvm.Sregs
	mem    space
	jumped bool   // regs.RIP is where to go on
	trap   *fault // taken after the instruction
}

// addr is the linear address of the memory operand.
func (o *op) addr() uint64 { return o.in.linear(&o.regs, &o.sregs) }

// size is the operand size in bytes.
func (o *op) size() int {
	switch {
	case o.in.rexW():
		return 8
	case o.in.opsize:
		return 2
	}
	return 4
}

// source reads the r/m operand of n bytes.
func (o *op) source(n int) (uint64, error) {
	var b [8]byte
	if o.in.mod == 3 {
		v := *gpr(&o.regs, o.in.rm)
		if n == 1 && o.in.rex == 0 && o.in.rm >= 4 { // ah, ch, dh, bh
			v = *gpr(&o.regs, o.in.rm-4) >> 8
		}
		return v & (^uint64(0) >> (64 - 8*n)), nil
	}
	if err := o.mem.read(o.addr(), b[:n]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// setGPR writes n bytes of a register; 4 bytes clear the upper half.
func (o *op) setGPR(num, n int, v uint64) {
	r := gpr(&o.regs, num)
	switch n {
	case 2:
		*r = *r&^0xffff | v&0xffff
	case 4:
		*r = uint64(uint32(v))
	default:
		*r = v
	}
}

func (o *op) setFlags(clear, set uint64) { o.regs.RFLAGS = o.regs.RFLAGS&^clear | set }

// nop is for hints, fences and cache control: the exit itself has ordered
// everything.
func nop(*op) error { return nil }

// int3 is used by the boot-time self test and by text poking.
func int3(o *op) error {
	o.trap = &fault{vector: vectorBP}
	return nil
}

// undefined is what BUG and WARN are made of.
func undefined(*op) error { return errUD }

func fwait(o *op) error {
	if o.sregs.CR0&(cr0MP|cr0TS) == cr0MP|cr0TS {
		return errNM
	}
	return nil
}

func clac(o *op) error { o.setFlags(flagAC, 0); return nil }
func stac(o *op) error { o.setFlags(0, flagAC); return nil }
