package assist

import (
	"encoding/binary"

	"github.com/lucid-containers/lucid/kvm"
)

// fsgsbase is RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE: ModRM.reg says which.
func fsgsbase(o *op) error {
	if o.sregs.CR4&cr4FSGSBASE == 0 {
		return errUD
	}
	n := o.size()
	if n == 2 {
		n = 4 // 66 has no effect
	}
	which := o.in.reg & 7
	if which < 2 {
		o.setGPR(o.in.rm, n, [2]uint64{o.sregs.FS.Base, o.sregs.GS.Base}[which])
		return nil
	}
	v := *gpr(&o.regs, o.in.rm)
	if n == 4 {
		v = uint64(uint32(v))
	}
	if !canonical(v, o.sregs.CR4&cr4LA57 != 0) {
		return errGP
	}
	return o.cpu.SetMSR([2]uint32{kvm.MSRFSBase, kvm.MSRGSBase}[which-2], v)
}

func swapgs(o *op) error {
	kernel, err := o.cpu.MSR(kvm.MSRKernelGSBase)
	if err != nil {
		return err
	}
	if err := o.cpu.SetMSR(kvm.MSRKernelGSBase, o.sregs.GS.Base); err != nil {
		return err
	}
	return o.cpu.SetMSR(kvm.MSRGSBase, kernel)
}

// sysretFlags are the RFLAGS bits that SYSRET takes from R11 (Intel SDM).
const sysretFlags = 0x3c7fd7

func sysret(o *op) error {
	if o.sregs.EFER&eferSCE == 0 {
		return errUD
	}
	star, err := o.cpu.MSR(kvm.MSRSTAR)
	if err != nil {
		return err
	}
	r := &o.regs
	base := uint16(star >> 48)
	cs := kvm.Segment{Limit: 0xffffffff, Type: 11, Present: 1, S: 1, G: 1, DPL: 3}
	if o.in.rexW() {
		if !canonical(r.RCX, o.sregs.CR4&cr4LA57 != 0) {
			return errGP
		}
		cs.Selector, cs.L, r.RIP = (base+16)|3, 1, r.RCX
	} else {
		cs.Selector, cs.DB, r.RIP = base|3, 1, uint64(uint32(r.RCX))
	}
	o.sregs.CS = cs
	o.sregs.SS = kvm.Segment{
		Limit: 0xffffffff, Selector: (base + 8) | 3, Type: 3, Present: 1, DB: 1, S: 1, G: 1, DPL: 3,
	}
	r.RFLAGS = r.R11&sysretFlags | flagReserved
	o.jumped = true
	return o.cpu.SetSregs(&o.sregs)
}

func xgetbv(o *op) error {
	if o.sregs.CR4&cr4OSXSAVE == 0 {
		return errUD
	}
	xcr0, err := o.xcr0()
	if err != nil {
		return err
	}
	switch uint32(o.regs.RCX) {
	case 0:
	case 1: // XINUSE
		var x kvm.Xsave
		if err := o.cpu.Xsave(&x); err != nil {
			return err
		}
		xcr0 &= binary.LittleEndian.Uint64(x.Region[xsHeader:])
	default:
		return errGP
	}
	o.regs.RAX, o.regs.RDX = uint64(uint32(xcr0)), xcr0>>32
	return nil
}

func rdtscp(o *op) error {
	tsc, err := o.cpu.MSR(kvm.MSRTSC)
	if err != nil {
		return err
	}
	aux, err := o.cpu.MSR(kvm.MSRTSCAux)
	if err != nil {
		return err
	}
	o.regs.RAX, o.regs.RDX, o.regs.RCX = uint64(uint32(tsc)), tsc>>32, uint64(uint32(aux))
	return nil
}

func rdpid(o *op) error {
	aux, err := o.cpu.MSR(kvm.MSRTSCAux)
	if err != nil {
		return err
	}
	o.setGPR(o.in.rm, 8, uint64(uint32(aux)))
	return nil
}

// invpcid flushes everything, which each of its types allows: a change of
// CR4.PGE makes KVM drop all translations of the vCPU.
func invpcid(o *op) error {
	if *gpr(&o.regs, o.in.reg) > 3 {
		return errGP
	}
	var descriptor [16]byte
	if err := o.mem.read(o.addr(), descriptor[:]); err != nil {
		return err
	}
	flipped := o.sregs
	flipped.CR4 ^= cr4PGE
	if err := o.cpu.SetSregs(&flipped); err != nil {
		return err
	}
	return o.cpu.SetSregs(&o.sregs)
}

// Descriptor bits (Intel SDM volume 3, 3.4.5), of the 8 bytes as one number.
const (
	descWritable = 1 << 41 // type: data, writable
	descCode     = 1 << 43
	descS        = 1 << 44
	descPresent  = 1 << 47
	descG        = 1 << 55
)

// descriptor reads the one that sel names; ok is false for a null selector and
// beyond the table.
func (o *op) descriptor(sel uint64) (d uint64, ok bool, err error) {
	base, limit := o.sregs.GDT.Base, uint64(o.sregs.GDT.Limit)
	if sel&4 != 0 {
		base, limit = o.sregs.LDT.Base, uint64(o.sregs.LDT.Limit)
	}
	if sel&^3&0xffff == 0 || sel&0xfff8+7 > limit {
		return 0, false, nil
	}
	var b [8]byte
	if err := o.mem.read(base+sel&0xfff8, b[:]); err != nil {
		return 0, false, err
	}
	return binary.LittleEndian.Uint64(b[:]), true, nil
}

// verw is there for its side effect, which clears CPU buffers; kernels ignore
// the answer.
func verw(o *op) error {
	sel, err := o.source(2)
	if err != nil {
		return err
	}
	d, ok, err := o.descriptor(sel)
	if err != nil {
		return err
	}
	o.setFlags(flagZF, 0)
	// At CPL 0 the privilege check is RPL against DPL.
	if ok && d&descS != 0 && d&descCode == 0 && d&descWritable != 0 && d>>45&3 >= sel&3 {
		o.setFlags(0, flagZF)
	}
	return nil
}

// lsl is how a kernel entry learns its CPU number from a segment limit.
func lsl(o *op) error {
	sel, err := o.source(2)
	if err != nil {
		return err
	}
	d, ok, err := o.descriptor(sel)
	if err != nil {
		return err
	}
	o.setFlags(flagZF, 0)
	if !ok || d&descS == 0 || d>>45&3 < sel&3 {
		return nil
	}
	limit := d&0xffff | d>>32&0xf0000
	if d&descG != 0 {
		limit = limit<<12 | 0xfff
	}
	o.setGPR(o.in.reg, o.size(), limit)
	o.setFlags(0, flagZF)
	return nil
}

// xcr0 is the set of state components that the guest has switched on.
func (o *op) xcr0() (uint64, error) {
	x, err := o.cpu.XCRS()
	if err != nil {
		return 0, err
	}
	for _, r := range x.XCRs[:min(int(x.NrXCRs), len(x.XCRs))] {
		if r.XCR == 0 {
			return r.Value, nil
		}
	}
	return 1, nil // x87 alone, the state after reset
}
