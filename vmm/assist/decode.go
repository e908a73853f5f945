package assist

import (
	"encoding/binary"
	"errors"

	"github.com/lucid-containers/lucid/kvm"
)

// maxInst is the length limit of an x86 instruction.
const maxInst = 15

// errShort says that the bytes end inside the instruction.
var errShort = errors.New("instruction is cut off")

// Opcode maps (Intel SDM volume 2, appendix A).
const (
	map1    = iota // one byte
	map0F          // 0f
	map0F38        // 0f 38
	map0F3A        // 0f 3a
)

// inst is a decoded 64-bit instruction: as much of it as the table needs.
type inst struct {
	opsize bool  // 66
	rep    byte  // f2, f3 or 0; the last one counts
	lock   bool  // f0
	seg    byte  // 64, 65 or 0; the others mean nothing in 64-bit mode
	addr32 bool  // 67
	rex    byte  // 0 or 40..4f
	opmap  uint8 // map1, ...
	op     byte

	hasModRM bool
	mod      byte
	reg      int // with REX.R
	rm       int // with REX.B; the base register if mod != 3 and there is one

	hasBase  bool
	hasIndex bool
	ripRel   bool
	index    int
	scale    uint
	disp     int64

	n int // length, without an immediate
}

func (in *inst) rexW() bool { return in.rex&8 != 0 }

// decode reads prefixes, opcode and operand bytes of 64-bit code.
func decode(p []byte) (inst, error) {
	var in inst
	d := reader{p: p[:min(len(p), maxInst)]}
	b := in.prefixes(&d)
	in.opmap, in.op = map1, b
	if b == 0x0f {
		in.opmap, in.op = map0F, d.byte()
		switch in.op {
		case 0x38:
			in.opmap, in.op = map0F38, d.byte()
		case 0x3a:
			in.opmap, in.op = map0F3A, d.byte()
		}
	}
	if hasModRM(in.opmap, in.op) {
		in.modRM(&d)
	}
	in.n = d.i
	if d.short {
		return inst{}, errShort
	}
	return in, nil
}

// prefixes reads legacy prefixes and REX and returns the byte after them.
func (in *inst) prefixes(d *reader) byte {
	for {
		b := d.byte()
		switch {
		case b == 0x66:
			in.opsize = true
		case b == 0xf2 || b == 0xf3:
			in.rep = b
		case b == 0xf0:
			in.lock = true
		case b == 0x64 || b == 0x65:
			in.seg = b
		case b == 0x67:
			in.addr32 = true
		case b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e:
		case b&0xf0 == 0x40:
			in.rex = b
			return d.byte()
		default:
			return b
		}
		if d.short {
			return 0
		}
	}
}

// hasModRM covers what the table has; other opcodes are not looked at further.
func hasModRM(opmap uint8, op byte) bool {
	switch opmap {
	case map0F:
		switch op {
		case 0x05, 0x07, 0x08, 0x09, 0x0b: // syscall, sysret, invd, wbinvd, ud2
			return false
		}
		return true
	case map0F38, map0F3A:
		return true
	}
	return false
}

func (in *inst) modRM(d *reader) {
	in.hasModRM = true
	b := d.byte()
	in.mod = b >> 6
	in.reg = int(b>>3&7) | int(in.rex&4)<<1
	in.rm = int(b&7) | int(in.rex&1)<<3
	if in.mod == 3 {
		return
	}
	in.hasBase = true
	switch b & 7 {
	case 4:
		sib := d.byte()
		in.scale = uint(sib >> 6)
		in.index = int(sib>>3&7) | int(in.rex&2)<<2
		in.hasIndex = in.index != 4
		in.rm = int(sib&7) | int(in.rex&1)<<3
		if sib&7 == 5 && in.mod == 0 {
			in.hasBase = false
			in.disp = d.disp32()
		}
	case 5:
		if in.mod == 0 {
			in.hasBase, in.ripRel = false, true
			in.disp = d.disp32()
		}
	}
	switch in.mod {
	case 1:
		in.disp = int64(int8(d.byte()))
	case 2:
		in.disp = d.disp32()
	}
}

// linear returns the address of the memory operand.
func (in *inst) linear(r *kvm.Regs, s *kvm.Sregs) uint64 {
	ea := uint64(in.disp)
	if in.hasBase {
		ea += *gpr(r, in.rm)
	}
	if in.hasIndex {
		ea += *gpr(r, in.index) << in.scale
	}
	if in.ripRel {
		ea += r.RIP + uint64(in.n) // no entry of the table has both this and an immediate
	}
	if in.addr32 {
		ea = uint64(uint32(ea))
	}
	switch in.seg {
	case 0x64:
		ea += s.FS.Base
	case 0x65:
		ea += s.GS.Base
	}
	return ea
}

// reader takes bytes; after the end it gives zeros and remembers.
type reader struct {
	p     []byte
	i     int
	short bool
}

func (d *reader) byte() byte {
	if d.i >= len(d.p) {
		d.short = true
		return 0
	}
	b := d.p[d.i]
	d.i++
	return b
}

func (d *reader) disp32() int64 {
	var b [4]byte
	for i := range b {
		b[i] = d.byte()
	}
	return int64(int32(binary.LittleEndian.Uint32(b[:])))
}
