package assist

// entry is one instruction that this package finishes.
type entry struct {
	name  string
	opmap uint8
	op    byte
	rep   byte // 0xf2 or 0xf3 must be there; 0: neither
	size  byte // what prefix 66 means: sizeAny, sizeNone, size66
	mod   byte // modNone, modReg, modMem, modAny
	reg   int8 // low 3 bits of ModRM.reg; -1: any
	rm    int8 // low 3 bits of ModRM.rm, with modReg; -1: any
	run   func(*op) error
}

const (
	sizeAny  = iota // the operand size, or nothing
	sizeNone        // another instruction: there must be none
	size66          // this instruction: it must be there
)

const (
	modNone = iota
	modReg
	modMem
	modAny
)

// table is in the order of the opcode maps. Each entry has a test in
// table_test.go; one without makes TestTableIsTested fail.
var table = []entry{
	{"fwait", map1, 0x9b, 0, sizeAny, modNone, -1, -1, fwait},
	{"int3", map1, 0xcc, 0, sizeAny, modNone, -1, -1, int3},

	{"verw", map0F, 0x00, 0, sizeAny, modAny, 5, -1, verw},
	{"xgetbv", map0F, 0x01, 0, sizeAny, modReg, 2, 0, xgetbv},
	{"clac", map0F, 0x01, 0, sizeAny, modReg, 1, 2, clac},
	{"stac", map0F, 0x01, 0, sizeAny, modReg, 1, 3, stac},
	{"serialize", map0F, 0x01, 0, sizeAny, modReg, 5, 0, nop},
	{"swapgs", map0F, 0x01, 0, sizeAny, modReg, 7, 0, swapgs},
	{"rdtscp", map0F, 0x01, 0, sizeAny, modReg, 7, 1, rdtscp},
	{"lsl", map0F, 0x03, 0, sizeAny, modAny, -1, -1, lsl},
	{"sysret", map0F, 0x07, 0, sizeAny, modNone, -1, -1, sysret},
	{"wbnoinvd", map0F, 0x09, 0xf3, sizeAny, modNone, -1, -1, nop},
	{"ud2", map0F, 0x0b, 0, sizeAny, modNone, -1, -1, undefined},
	{"prefetchw", map0F, 0x0d, 0, sizeAny, modMem, -1, -1, nop},
	{"prefetch", map0F, 0x18, 0, sizeAny, modMem, -1, -1, nop},
	{"cldemote", map0F, 0x1c, 0, sizeAny, modMem, 0, -1, nop},
	{"endbr64", map0F, 0x1e, 0xf3, sizeAny, modReg, 7, 2, nop},

	{"xsave", map0F, 0xae, 0, sizeNone, modMem, 4, -1, xsave},
	{"xrstor", map0F, 0xae, 0, sizeNone, modMem, 5, -1, xrstor},
	{"xsaveopt", map0F, 0xae, 0, sizeNone, modMem, 6, -1, xsaveopt},
	{"clflush", map0F, 0xae, 0, sizeNone, modMem, 7, -1, nop},
	{"clflushopt", map0F, 0xae, 0, size66, modMem, 7, -1, nop},
	{"clwb", map0F, 0xae, 0, size66, modMem, 6, -1, nop},
	{"ldmxcsr", map0F, 0xae, 0, sizeNone, modMem, 2, -1, ldmxcsr},
	{"stmxcsr", map0F, 0xae, 0, sizeNone, modMem, 3, -1, stmxcsr},
	{"lfence", map0F, 0xae, 0, sizeNone, modReg, 5, -1, nop},
	{"mfence", map0F, 0xae, 0, sizeNone, modReg, 6, -1, nop},
	{"sfence", map0F, 0xae, 0, sizeNone, modReg, 7, -1, nop},
	{"rdfsbase", map0F, 0xae, 0xf3, sizeAny, modReg, 0, -1, fsgsbase},
	{"rdgsbase", map0F, 0xae, 0xf3, sizeAny, modReg, 1, -1, fsgsbase},
	{"wrfsbase", map0F, 0xae, 0xf3, sizeAny, modReg, 2, -1, fsgsbase},
	{"wrgsbase", map0F, 0xae, 0xf3, sizeAny, modReg, 3, -1, fsgsbase},

	{"popcnt", map0F, 0xb8, 0xf3, sizeAny, modAny, -1, -1, popcnt},
	{"ud1", map0F, 0xb9, 0, sizeAny, modAny, -1, -1, undefined},
	{"tzcnt", map0F, 0xbc, 0xf3, sizeAny, modAny, -1, -1, tzcnt},
	{"lzcnt", map0F, 0xbd, 0xf3, sizeAny, modAny, -1, -1, lzcnt},
	{"cmpxchg16b", map0F, 0xc7, 0, sizeAny, modMem, 1, -1, cmpxchg16b},
	{"rdrand", map0F, 0xc7, 0, sizeAny, modReg, 6, -1, rdrand},
	{"rdseed", map0F, 0xc7, 0, sizeAny, modReg, 7, -1, rdrand},
	{"rdpid", map0F, 0xc7, 0xf3, sizeAny, modReg, 7, -1, rdpid},
	{"ud0", map0F, 0xff, 0, sizeAny, modAny, -1, -1, undefined},

	{"invpcid", map0F38, 0x82, 0, size66, modMem, -1, -1, invpcid},
	{"crc32", map0F38, 0xf0, 0xf2, sizeAny, modAny, -1, -1, crc32b},
	{"crc32", map0F38, 0xf1, 0xf2, sizeAny, modAny, -1, -1, crc32v},
}

// find returns the index of the entry for in, or -1.
func find(in *inst) int {
	for i := range table {
		if table[i].matches(in) {
			return i
		}
	}
	return -1
}

func (e *entry) matches(in *inst) bool {
	if e.opmap != in.opmap || e.op != in.op || e.rep != in.rep {
		return false
	}
	if e.size == sizeNone && in.opsize || e.size == size66 && !in.opsize {
		return false
	}
	if e.mod == modNone {
		return true
	}
	isReg := in.mod == 3
	switch {
	case e.mod == modReg && !isReg, e.mod == modMem && isReg:
		return false
	case e.reg >= 0 && int(e.reg) != in.reg&7:
		return false
	}
	return e.rm < 0 || int(e.rm) == in.rm&7
}
