package seccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// instruction is struct sock_filter of linux/filter.h.
type instruction struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

// The instructions that are used.
const (
	opLoad  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRet   = unix.BPF_RET | unix.BPF_K
	opJump  = unix.BPF_JMP | unix.BPF_JA
	opJumpE = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K // equal
	opJumpA = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K // above
	opJumpG = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K // above or equal
)

// Offsets in struct seccomp_data, linux/seccomp.h. An argument has its low word
// first.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// x32Bit marks the numbers of x32, asm/unistd.h (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// segment is the range of numbers from its own to the next one's.
type segment struct {
	from uint32
	code []instruction // ends with a return on every way
}

// assemble writes the filter. above is the result of numbers above highest.
func assemble(calls []call, def, above uint32, highest int64, x32 uint32) []instruction {
	var segments []segment
	add := func(from uint32, code []instruction) {
		n := len(segments)
		switch {
		case n > 0 && segments[n-1].from == from:
			segments[n-1].code = code
		case n > 0 && len(code) == 1 && len(segments[n-1].code) == 1 && segments[n-1].code[0] == code[0]:
			// The same result as before.
		default:
			segments = append(segments, segment{from, code})
		}
	}
	add(0, ret(def))
	for _, c := range calls {
		add(c.nr, rulesCode(c.rules, def))
		add(c.nr+1, ret(def))
	}
	add(uint32(highest+1), ret(above))
	add(x32Bit, ret(x32))
	code := []instruction{
		{op: opLoad, k: offsetArch},
		{op: opJumpE, jt: 1, k: unix.AUDIT_ARCH_X86_64},
		{op: opRet, k: unix.SECCOMP_RET_KILL_THREAD}, // the guest's kernel runs no other
		{op: opLoad, k: offsetNumber},
	}
	return append(code, search(segments)...)
}

func ret(value uint32) []instruction { return []instruction{{op: opRet, k: value}} }

// search is a binary search for the segment of the number in the accumulator.
func search(segments []segment) []instruction {
	if len(segments) == 1 {
		return segments[0].code
	}
	middle := len(segments) / 2
	below, above := search(segments[:middle]), search(segments[middle:])
	var code []instruction
	if k := segments[middle].from; len(below) <= 255 {
		code = []instruction{{op: opJumpG, jt: uint8(len(below)), k: k}}
	} else {
		code = []instruction{{op: opJumpG, jf: 1, k: k}, {op: opJump, k: uint32(len(below))}}
	}
	return append(append(code, below...), above...)
}

// rulesCode tries rules in their order.
func rulesCode(rules []rule, def uint32) []instruction {
	var code []instruction
	for _, r := range rules {
		code = append(code, ruleCode(r)...)
		if len(r.args) == 0 {
			return code
		}
	}
	return append(code, ret(def)...)
}

// ruleCode returns the rule's action, or goes on behind itself. A rule has at
// most six comparisons of at most seven instructions, so its jumps fit.
func ruleCode(r rule) []instruction {
	code := ret(r.action)
	for i := len(r.args) - 1; i >= 0; i-- {
		code = append(compare(r.args[i], uint8(len(code))), code...)
	}
	return code
}

// compare goes on behind itself if the argument matches and skips further
// instructions otherwise.
func compare(a specs.LinuxSeccompArg, skip uint8) []instruction {
	low := uint32(offsetArgs + 8*a.Index)
	high := low + 4
	vh, vl := uint32(a.Value>>32), uint32(a.Value)
	switch a.Op {
	case specs.OpEqualTo:
		return []instruction{
			{op: opLoad, k: high},
			{op: opJumpE, jf: skip + 2, k: vh},
			{op: opLoad, k: low},
			{op: opJumpE, jf: skip, k: vl},
		}
	case specs.OpNotEqual:
		return []instruction{
			{op: opLoad, k: high},
			{op: opJumpE, jf: 2, k: vh},
			{op: opLoad, k: low},
			{op: opJumpE, jt: skip, k: vl},
		}
	case specs.OpMaskedEqual:
		// Value is the mask.
		wh, wl := uint32(a.ValueTwo>>32), uint32(a.ValueTwo)
		return []instruction{
			{op: opLoad, k: high},
			{op: opAnd, k: vh},
			{op: opJumpE, jf: skip + 3, k: wh},
			{op: opLoad, k: low},
			{op: opAnd, k: vl},
			{op: opJumpE, jf: skip, k: wl},
		}
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		last := uint16(opJumpA)
		if a.Op == specs.OpGreaterEqual {
			last = opJumpG
		}
		return []instruction{
			{op: opLoad, k: high},
			{op: opJumpA, jt: 3, k: vh},
			{op: opJumpE, jf: skip + 2, k: vh},
			{op: opLoad, k: low},
			{op: last, jf: skip, k: vl},
		}
	default: // LT and LE: the opposites
		last := uint16(opJumpG)
		if a.Op == specs.OpLessEqual {
			last = opJumpA
		}
		return []instruction{
			{op: opLoad, k: high},
			{op: opJumpA, jt: skip + 3, k: vh},
			{op: opJumpE, jf: 2, k: vh},
			{op: opLoad, k: low},
			{op: last, jt: skip, k: vl},
		}
	}
}
