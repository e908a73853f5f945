package assist

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/lucid-containers/lucid/kvm"
)

// The standard format of the XSAVE area (Intel SDM volume 1, 13.4), which is
// also what KVM_GET_XSAVE and KVM_SET_XSAVE move.
const (
	xsMXCSR  = 24  // MXCSR and its mask, 8 bytes, between two parts of the x87 state
	xsST     = 32  // ST0 to ST7
	xsXMM    = 160 // XMM0 to XMM15
	xsXMMEnd = 416
	xsHeader = 512 // XSTATE_BV, XCOMP_BV, 48 reserved bytes
	xsCompBV = 520
	xsExt    = 576 // extended components, at offsets that CPUID leaf 0xd gives

	xfX87   = 1 << 0
	xfSSE   = 1 << 1
	xfAVX   = 1 << 2
	xfMXCSR = xfSSE | xfAVX // either asks for MXCSR

	fcwInit   = 0x37f
	mxcsrMask = 0x2ffff // bits that may be set without #GP
)

// component is one extended state component in the standard format.
type component struct{ offset, size uint32 }

// layout maps component numbers to places. It comes from the vCPU's CPUID,
// which is the host's: the format does not depend on what the guest enables.
type layout map[int]component

// newLayout reads leaf 0xd.
func newLayout(leaves []kvm.CPUIDEntry) layout {
	l := layout{}
	for _, e := range leaves {
		end := uint64(e.EAX) + uint64(e.EBX)
		if e.Function == 0xd && e.Index >= 2 && e.Index < 63 && e.ECX&1 == 0 && // ECX[0]: supervisor state
			e.EAX > 0 && e.EBX >= xsExt && end <= uint64(len(kvm.Xsave{}.Region)) {
			l[int(e.Index)] = component{offset: e.EBX, size: e.EAX}
		}
	}
	return l
}

// piece is a part of the area that one component owns.
type piece struct{ from, to uint32 }

// pieces returns the parts that component n owns.
func (l layout) pieces(n int) ([]piece, error) {
	switch n {
	case 0:
		return []piece{{0, xsMXCSR}, {xsST, xsXMM}}, nil
	case 1:
		return []piece{{xsXMM, xsXMMEnd}}, nil
	}
	c, ok := l[n]
	if !ok {
		return nil, fmt.Errorf("XSAVE state component %d has no known place", n)
	}
	return []piece{{c.offset, c.offset + c.size}}, nil
}

// xsaveSetup does the checks that all of the family share, and returns the
// address of the area and RFBM, the requested components.
func (o *op) xsaveSetup() (addr, rfbm uint64, err error) {
	switch {
	case o.sregs.CR4&cr4OSXSAVE == 0:
		return 0, 0, errUD
	case o.sregs.CR0&cr0TS != 0:
		return 0, 0, errNM
	}
	addr = o.addr()
	if addr%64 != 0 {
		return 0, 0, errGP
	}
	xcr0, err := o.xcr0()
	if err != nil {
		return 0, 0, err
	}
	return addr, xcr0 & (uint64(uint32(o.regs.RDX))<<32 | uint64(uint32(o.regs.RAX))), nil
}

// xsaveopt may leave out what has not changed; leaving out nothing is right.
func xsaveopt(o *op) error { return xsave(o) }

func xsave(o *op) error {
	addr, rfbm, err := o.xsaveSetup()
	if err != nil {
		return err
	}
	var x kvm.Xsave
	if err := o.cpu.Xsave(&x); err != nil {
		return err
	}
	var old [8]byte
	if err := o.mem.read(addr+xsHeader, old[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	inUse := le.Uint64(x.Region[xsHeader:])
	// KVM fills in the initial state of components that are not in use.
	for n := range components(rfbm) {
		pieces, err := o.vm.layout.pieces(n)
		if err != nil {
			return err
		}
		for _, p := range pieces {
			if err := o.mem.write(addr+uint64(p.from), x.Region[p.from:p.to]); err != nil {
				return err
			}
		}
	}
	if rfbm&xfMXCSR != 0 {
		if err := o.mem.write(addr+xsMXCSR, x.Region[xsMXCSR:xsST]); err != nil {
			return err
		}
	}
	bv := le.Uint64(old[:])&^rfbm | inUse&rfbm
	return o.mem.write(addr+xsHeader, le.AppendUint64(nil, bv))
}

func xrstor(o *op) error {
	addr, rfbm, err := o.xsaveSetup()
	if err != nil {
		return err
	}
	xcr0, err := o.xcr0()
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	var header [24]byte
	if err := o.mem.read(addr+xsHeader, header[:]); err != nil {
		return err
	}
	bv := le.Uint64(header[:])
	// The compacted form (XCOMP_BV bit 63) is refused as a CPU without XSAVEC would:
	// user code can bring such an area in by sigreturn, and the kernel handles #GP.
	if bv&^xcr0 != 0 || le.Uint64(header[8:]) != 0 || le.Uint64(header[16:]) != 0 {
		return errGP
	}
	var x kvm.Xsave
	if err := o.cpu.Xsave(&x); err != nil {
		return err
	}
	for n := range components(rfbm) {
		if err := o.restore(&x, n, addr, bv); err != nil {
			return err
		}
	}
	if rfbm&xfMXCSR != 0 { // from memory even if the component is initial
		var m [4]byte
		if err := o.mem.read(addr+xsMXCSR, m[:]); err != nil {
			return err
		}
		if le.Uint32(m[:])&^mxcsrMask != 0 {
			return errGP
		}
		copy(x.Region[xsMXCSR:], m[:])
	}
	now := le.Uint64(x.Region[xsHeader:])&^rfbm | bv&rfbm
	// x87 and SSE are always given as they are: KVM takes MXCSR only with them.
	le.PutUint64(x.Region[xsHeader:], now|xfX87|xfSSE)
	return o.cpu.SetXsave(&x)
}

// restore sets component n of x from the area at addr, or to its initial state.
func (o *op) restore(x *kvm.Xsave, n int, addr, bv uint64) error {
	pieces, err := o.vm.layout.pieces(n)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		dst := x.Region[p.from:p.to]
		if bv>>n&1 == 0 {
			clear(dst)
			continue
		}
		if err := o.mem.read(addr+uint64(p.from), dst); err != nil {
			return err
		}
	}
	if n == 0 && bv&xfX87 == 0 {
		binary.LittleEndian.PutUint16(x.Region[:], fcwInit)
	}
	return nil
}

// components yields the numbers of the bits set in mask.
func components(mask uint64) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for ; mask != 0; mask &= mask - 1 {
			if !yield(bits.TrailingZeros64(mask)) {
				return
			}
		}
	}
}

func stmxcsr(o *op) error {
	if o.sregs.CR0&cr0TS != 0 {
		return errNM
	}
	var x kvm.Xsave
	if err := o.cpu.Xsave(&x); err != nil {
		return err
	}
	return o.mem.write(o.addr(), x.Region[xsMXCSR:xsMXCSR+4])
}

func ldmxcsr(o *op) error {
	if o.sregs.CR0&cr0TS != 0 {
		return errNM
	}
	v, err := o.source(4)
	if err != nil {
		return err
	}
	if v&^mxcsrMask != 0 {
		return errGP
	}
	var x kvm.Xsave
	if err := o.cpu.Xsave(&x); err != nil {
		return err
	}
	le := binary.LittleEndian
	le.PutUint32(x.Region[xsMXCSR:], uint32(v))
	le.PutUint64(x.Region[xsHeader:], le.Uint64(x.Region[xsHeader:])|xfX87|xfSSE)
	return o.cpu.SetXsave(&x)
}
