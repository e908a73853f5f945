package assist

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

func popcnt(o *op) error {
	n := o.size()
	v, err := o.source(n)
	if err != nil {
		return err
	}
	o.setGPR(o.in.reg, n, uint64(bits.OnesCount64(v)))
	o.setFlags(flagsArith, zeroFlag(v))
	return nil
}

func tzcnt(o *op) error {
	n := o.size()
	v, err := o.source(n)
	if err != nil {
		return err
	}
	return o.count(n, min(bits.TrailingZeros64(v), 8*n), v)
}

func lzcnt(o *op) error {
	n := o.size()
	v, err := o.source(n)
	if err != nil {
		return err
	}
	return o.count(n, bits.LeadingZeros64(v)-(64-8*n), v)
}

// count stores the result of tzcnt or lzcnt: CF for a source of zero, ZF for a
// result of zero.
func (o *op) count(n, result int, source uint64) error {
	o.setGPR(o.in.reg, n, uint64(result))
	set := zeroFlag(uint64(result))
	if source == 0 {
		set |= flagCF
	}
	o.setFlags(flagCF|flagZF, set)
	return nil
}

func zeroFlag(v uint64) uint64 {
	if v == 0 {
		return flagZF
	}
	return 0
}

func crc32b(o *op) error { return o.crc32(1) }
func crc32v(o *op) error { return o.crc32(o.size()) }

// crc32c is the polynomial of the CRC32 instruction, reflected.
const crc32c = 0x82f63b78

// crc32 is the bare polynomial division: no inversion before or after.
func (o *op) crc32(n int) error {
	v, err := o.source(n)
	if err != nil {
		return err
	}
	crc := uint32(*gpr(&o.regs, o.in.reg))
	for i := range n {
		crc ^= uint32(byte(v >> (8 * i)))
		for range 8 {
			crc = crc>>1 ^ crc32c&-(crc&1)
		}
	}
	o.setGPR(o.in.reg, 4, uint64(crc))
	return nil
}

// cmpxchg16b; without REX.W it is cmpxchg8b, which the emulator of KVM has.
func cmpxchg16b(o *op) error {
	if !o.in.rexW() {
		return errUnknown
	}
	addr := o.addr()
	if addr%16 != 0 {
		return errGP
	}
	spans, err := o.mem.translate(addr, 16, true) // a write even if it does not swap
	if err != nil {
		return err
	}
	r := &o.regs
	held, swapped, err := o.mem.mem.CompareAndSwap128(spans[0].addr,
		guestmem.Uint128{Lo: r.RAX, Hi: r.RDX}, guestmem.Uint128{Lo: r.RBX, Hi: r.RCX})
	if err != nil {
		return errNotRAM
	}
	if swapped {
		o.setFlags(0, flagZF)
		return nil
	}
	r.RAX, r.RDX = held.Lo, held.Hi
	o.setFlags(flagZF, 0)
	return nil
}

// rdrand also serves rdseed: the host's generator is seeded.
func rdrand(o *op) error {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	o.setGPR(o.in.rm, o.size(), binary.LittleEndian.Uint64(b[:]))
	o.setFlags(flagsArith, flagCF) // CF: the value is good
	return nil
}
