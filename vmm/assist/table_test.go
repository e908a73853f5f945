package assist

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/kvm"
)

// instCase is one instruction that ends without an exception.
type instCase struct {
	name  string // of the table entry
	code  []byte
	set   func(*fixture)
	check func(*testing.T, *fixture)
}

func regIs(name string, get func(*kvm.Regs) uint64, want uint64) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		t.Helper()
		if got := get(&f.cpu.regs); got != want {
			t.Errorf("%s = %#x, want %#x", name, got, want)
		}
	}
}

func rax(want uint64) func(*testing.T, *fixture) {
	return regIs("rax", func(r *kvm.Regs) uint64 { return r.RAX }, want)
}

func flags(mask, want uint64) func(*testing.T, *fixture) {
	return regIs("rflags", func(r *kvm.Regs) uint64 { return r.RFLAGS & mask }, want)
}

func both(checks ...func(*testing.T, *fixture)) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		t.Helper()
		for _, c := range checks {
			c(t, f)
		}
	}
}

func nothing(*fixture)             {}
func noCheck(*testing.T, *fixture) {}
func setRegs(r kvm.Regs) func(*fixture) {
	return func(f *fixture) {
		r.RIP, r.RSP, r.RFLAGS = f.cpu.regs.RIP, f.cpu.regs.RSP, f.cpu.regs.RFLAGS|r.RFLAGS
		f.cpu.regs = r
	}
}

const ones = ^uint64(0)

var instCases = []instCase{
	{"fwait", []byte{0x9b}, nothing, noCheck},
	{"clac", []byte{0x0f, 0x01, 0xca}, setRegs(kvm.Regs{RFLAGS: flagAC}), flags(flagAC, 0)},
	{"stac", []byte{0x0f, 0x01, 0xcb}, nothing, flags(flagAC, flagAC)},
	{"serialize", []byte{0x0f, 0x01, 0xe8}, nothing, noCheck},
	{"wbnoinvd", []byte{0xf3, 0x0f, 0x09}, nothing, noCheck},
	{"prefetchw", []byte{0x0f, 0x0d, 0x08}, nothing, noCheck},
	{"prefetch", []byte{0x0f, 0x18, 0x84, 0x88, 1, 2, 3, 4}, nothing, noCheck}, // with SIB and disp32
	{"cldemote", []byte{0x0f, 0x1c, 0x00}, nothing, noCheck},
	{"endbr64", []byte{0xf3, 0x0f, 0x1e, 0xfa}, nothing, noCheck},
	{"clflush", []byte{0x0f, 0xae, 0x3f}, nothing, noCheck},
	{"clflushopt", []byte{0x66, 0x0f, 0xae, 0x3f}, nothing, noCheck},
	{"clwb", []byte{0x66, 0x0f, 0xae, 0x37}, nothing, noCheck}, // without 66: xsaveopt
	{"lfence", []byte{0x0f, 0xae, 0xe8}, nothing, noCheck},
	{"mfence", []byte{0x0f, 0xae, 0xf0}, nothing, noCheck},
	{"sfence", []byte{0x0f, 0xae, 0xf8}, nothing, noCheck},

	{"popcnt", []byte{0xf3, 0x48, 0x0f, 0xb8, 0xc3}, setRegs(kvm.Regs{RBX: ones, RFLAGS: flagsArith}), both(rax(64), flags(flagsArith, 0))},
	{"popcnt", []byte{0xf3, 0x0f, 0xb8, 0xc3}, setRegs(kvm.Regs{RAX: ones, RBX: 0xf00000000}), both(rax(0), flags(flagZF, flagZF))},
	{"popcnt", []byte{0x66, 0xf3, 0x41, 0x0f, 0xb8, 0xc1}, setRegs(kvm.Regs{RAX: 0xaabbccdd11112222, R9: 0xffff0101}), rax(0xaabbccdd11110002)},
	{"popcnt", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x44, 0xd3, 0x10}, // popcnt 0x10(%rbx,%rdx,8), %rax
		func(f *fixture) {
			f.cpu.regs.RBX, f.cpu.regs.RDX = fakeData-0x10, 2
			f.put64(fakeData+16, 0x8000000000000001)
		}, rax(2)},
	{"popcnt", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x05, 0xf0, 0xff, 0x00, 0x00}, // popcnt 0xfff0(%rip), %rax
		func(f *fixture) { f.put64(fakeCode+9+0xfff0-1, 0); f.put(fakeCode+9+0xfff0, 7) }, rax(3)},
	{"popcnt", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x04, 0x24}, // popcnt (%rsp), %rax: a SIB byte without an index
		func(f *fixture) { f.cpu.regs.RSP = fakeData; f.put64(fakeData, 0xff) }, rax(8)},
	{"tzcnt", []byte{0xf3, 0x48, 0x0f, 0xbc, 0xc3}, setRegs(kvm.Regs{RBX: 0x100}), both(rax(8), flags(flagCF|flagZF, 0))},
	{"tzcnt", []byte{0xf3, 0x0f, 0xbc, 0xc3}, setRegs(kvm.Regs{RBX: 1 << 40}), both(rax(32), flags(flagCF|flagZF, flagCF))},
	{"lzcnt", []byte{0xf3, 0x0f, 0xbd, 0xc3}, setRegs(kvm.Regs{RBX: 1 << 31}), both(rax(0), flags(flagCF|flagZF, flagZF))},
	{"lzcnt", []byte{0xf3, 0x48, 0x0f, 0xbd, 0xc3}, setRegs(kvm.Regs{RBX: 0}), both(rax(64), flags(flagCF, flagCF))},
	{"rdrand", []byte{0x48, 0x0f, 0xc7, 0xf0}, nothing, flags(flagCF, flagCF)},
	{"rdseed", []byte{0x48, 0x0f, 0xc7, 0xf8}, nothing, flags(flagCF, flagCF)},

	// CRC-32C of "123456789" is e3069283; the instruction has no inversions.
	{
		"crc32",
		[]byte{0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc3},
		setRegs(kvm.Regs{RAX: 0xffffffff, RBX: 0x3837363534333231}),
		func(t *testing.T, f *fixture) {
			t.Helper()
			f.cpu.regs.RIP, f.cpu.regs.RBX = fakeRIP, '9'
			f.do(0xf2, 0x0f, 0x38, 0xf0, 0xc3)
			rax(uint64(^uint32(0xe3069283)))(t, f)
		},
	},
	{"crc32", []byte{0xf2, 0x0f, 0x38, 0xf0, 0xc7}, setRegs(kvm.Regs{RBX: 0x0100}), rax(0xf26b8303)}, // from bh

	{
		"cmpxchg16b",
		[]byte{0xf0, 0x48, 0x0f, 0xc7, 0x0f},
		func(f *fixture) {
			setRegs(kvm.Regs{RDI: fakeData, RAX: 1, RDX: 2, RBX: 3, RCX: 4})(f)
			f.put64(fakeData, 1)
			f.put64(fakeData+8, 2)
		},
		func(t *testing.T, f *fixture) {
			t.Helper()
			flags(flagZF, flagZF)(t, f)
			if f.get64(fakeData) != 3 || f.get64(fakeData+8) != 4 {
				t.Error("not swapped")
			}
		},
	},
	{
		"cmpxchg16b",
		[]byte{0x48, 0x0f, 0xc7, 0x0f},
		func(f *fixture) {
			setRegs(kvm.Regs{RDI: fakeData, RAX: 1, RDX: 2, RFLAGS: flagZF})(f)
			f.put64(fakeData, 5)
			f.put64(fakeData+8, 6)
		},
		both(flags(flagZF, 0), rax(5), regIs("rdx", func(r *kvm.Regs) uint64 { return r.RDX }, 6)),
	},

	{"rdfsbase", []byte{0xf3, 0x48, 0x0f, 0xae, 0xc0}, nothing, rax(0x3333)},
	{"rdgsbase", []byte{0xf3, 0x48, 0x0f, 0xae, 0xc8}, nothing, rax(0x2222)},
	{"wrfsbase", []byte{0xf3, 0x0f, 0xae, 0xd0}, setRegs(kvm.Regs{RAX: 0x1_0000_5555}), msrIs(kvm.MSRFSBase, 0x5555)},
	{"wrgsbase", []byte{0xf3, 0x48, 0x0f, 0xae, 0xd8}, setRegs(kvm.Regs{RAX: 0xffff800000000000}), msrIs(kvm.MSRGSBase, 0xffff800000000000)},
	{"swapgs", []byte{0x0f, 0x01, 0xf8}, nothing, both(msrIs(kvm.MSRGSBase, 0x1111), msrIs(kvm.MSRKernelGSBase, 0x2222))},
	{"rdtscp", []byte{0x0f, 0x01, 0xf9}, nothing, both(rax(2), regIs("rdx", func(r *kvm.Regs) uint64 { return r.RDX }, 1), regIs("rcx", func(r *kvm.Regs) uint64 { return r.RCX }, 3))},
	{"rdpid", []byte{0xf3, 0x0f, 0xc7, 0xf8}, nothing, rax(3)},
	{"xgetbv", []byte{0x0f, 0x01, 0xd0}, setRegs(kvm.Regs{RDX: 9}), both(rax(7), regIs("rdx", func(r *kvm.Regs) uint64 { return r.RDX }, 0))},
	{"xgetbv", []byte{0x0f, 0x01, 0xd0}, func(f *fixture) { f.cpu.regs.RCX = 1; f.cpu.xsave.Region[xsHeader] = 2 }, rax(2)},
	{
		"invpcid",
		[]byte{0x66, 0x0f, 0x38, 0x82, 0x07},
		setRegs(kvm.Regs{RDI: fakeData, RAX: 2}),
		func(t *testing.T, f *fixture) {
			t.Helper()
			if n := len(f.cpu.setSregs); n != 2 || f.cpu.setSregs[0].CR4^f.cpu.setSregs[1].CR4 != cr4PGE {
				t.Errorf("%d SetSregs, want CR4.PGE to flip there and back", n)
			}
		},
	},
	{"verw", []byte{0x0f, 0x00, 0xe8}, func(f *fixture) { f.cpu.regs.RAX = 0x18; f.put64(fakeGDT+0x18, 0x00cf93000000ffff) }, flags(flagZF, flagZF)},
	{"verw", []byte{0x0f, 0x00, 0xe8}, func(f *fixture) { f.cpu.regs.RAX = 0x10; f.put64(fakeGDT+0x10, 0x00af9b000000ffff) }, flags(flagZF, 0)},
	{"lsl", []byte{0x48, 0x0f, 0x03, 0xc3}, func(f *fixture) { f.cpu.regs.RBX = 0x7b; f.put64(fakeGDT+0x78, 0x0040f50000001005) }, both(rax(0x1005), flags(flagZF, flagZF))},
	{"lsl", []byte{0x0f, 0x03, 0xc3}, func(f *fixture) { f.cpu.regs.RBX = 0x10; f.put64(fakeGDT+0x10, 0x00af9b000000ffff) }, rax(0xffffffff)},
	{"lsl", []byte{0x0f, 0x03, 0xc3}, setRegs(kvm.Regs{RAX: 5, RBX: 0x1000}), both(rax(5), flags(flagZF, 0))}, // beyond the table
	{
		"stmxcsr",
		[]byte{0x0f, 0xae, 0x1f},
		func(f *fixture) { f.cpu.regs.RDI = fakeData; f.cpu.xsave.Region[xsMXCSR] = 0x80 },
		func(t *testing.T, f *fixture) {
			t.Helper()
			if v := f.get64(fakeData); v != 0x80 {
				t.Errorf("stored %#x", v)
			}
		},
	},
	{
		"ldmxcsr",
		[]byte{0x0f, 0xae, 0x17},
		func(f *fixture) { f.cpu.regs.RDI = fakeData; f.put64(fakeData, 0x1f80) },
		func(t *testing.T, f *fixture) {
			t.Helper()
			if x := &f.cpu.xsave.Region; x[xsMXCSR] != 0x80 || x[xsMXCSR+1] != 0x1f || x[xsHeader]&3 != 3 {
				t.Error("MXCSR is not loaded")
			}
		},
	},
}

func msrIs(index uint32, want uint64) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		t.Helper()
		if got := f.cpu.msrs[index]; got != want {
			t.Errorf("MSR %#x = %#x, want %#x", index, got, want)
		}
	}
}

func TestInstructions(t *testing.T) {
	for i, tt := range instCases {
		t.Run(fmt.Sprintf("%d %s", i, tt.name), func(t *testing.T) {
			f := newFixture(t)
			tt.set(f)
			f.do(tt.code...)
			f.done(len(tt.code))
			tt.check(t, f)
			if n := f.vm.Counts()[tt.name]; n == 0 {
				t.Errorf("not counted as %s: %v", tt.name, f.vm.Counts())
			}
		})
	}
}

// TestTableIsTested: an entry without a test is not to be added.
func TestTableIsTested(t *testing.T) {
	tested := map[string]bool{ // these have a test of their own
		"int3": true, "ud0": true, "ud1": true, "ud2": true, "sysret": true,
		"xsave": true, "xsaveopt": true, "xrstor": true,
	}
	for _, tt := range instCases {
		tested[tt.name] = true
	}
	for _, e := range table {
		if !tested[e.name] {
			t.Errorf("%s has no test", e.name)
		}
	}
}

// TestFaults: instructions that end in an exception, with nothing changed.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		code   []byte
		set    func(*fixture)
		vector int
	}{
		{"ud2", []byte{0x0f, 0x0b}, nothing, vectorUD},
		{"ud1", []byte{0x0f, 0xb9, 0xc0}, nothing, vectorUD},
		{"ud0", []byte{0x0f, 0xff, 0xc0}, nothing, vectorUD},
		{"fwait with TS", []byte{0x9b}, func(f *fixture) { f.cpu.sregs.CR0 |= cr0TS | cr0MP }, vectorNM},
		{"rdfsbase off", []byte{0xf3, 0x48, 0x0f, 0xae, 0xc0}, func(f *fixture) { f.cpu.sregs.CR4 &^= cr4FSGSBASE }, vectorUD},
		{"wrgsbase not canonical", []byte{0xf3, 0x48, 0x0f, 0xae, 0xd8}, setRegs(kvm.Regs{RAX: 1 << 47}), vectorGP},
		{"xgetbv 2", []byte{0x0f, 0x01, 0xd0}, setRegs(kvm.Regs{RCX: 2}), vectorGP},
		{"xgetbv off", []byte{0x0f, 0x01, 0xd0}, func(f *fixture) { f.cpu.sregs.CR4 &^= cr4OSXSAVE }, vectorUD},
		{"invpcid 4", []byte{0x66, 0x0f, 0x38, 0x82, 0x07}, setRegs(kvm.Regs{RDI: fakeData, RAX: 4}), vectorGP},
		{"cmpxchg16b unaligned", []byte{0x48, 0x0f, 0xc7, 0x0f}, setRegs(kvm.Regs{RDI: fakeData + 8}), vectorGP},
		{"ldmxcsr reserved", []byte{0x0f, 0xae, 0x17}, func(f *fixture) { f.cpu.regs.RDI = fakeData; f.put64(fakeData, 1<<20) }, vectorGP},
		{"operand not canonical", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x03}, setRegs(kvm.Regs{RBX: 1 << 63}), vectorGP},
		{"operand not mapped", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x03}, setRegs(kvm.Regs{RBX: 1 << 30}), vectorPF},
		{"operand at the end of a mapping", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x03}, setRegs(kvm.Regs{RBX: 2<<20 - 4}), vectorPF},
		{"sysret not canonical", []byte{0x48, 0x0f, 0x07}, setRegs(kvm.Regs{RCX: 1 << 47}), vectorGP},
		{"sysret off", []byte{0x48, 0x0f, 0x07}, func(f *fixture) { f.cpu.sregs.EFER &^= eferSCE }, vectorUD},
		{"popcnt of user code", []byte{0xf3, 0x48, 0x0f, 0xb8, 0xc3}, func(f *fixture) { f.cpu.sregs.CS.Selector = 0x33 }, vectorUD},
		{"unknown of user code", []byte{0x0f, 0x3f, 0xc3}, func(f *fixture) { f.cpu.sregs.CS.Selector = 0x33 }, vectorUD},
		{"xsave of user code", []byte{0x0f, 0xae, 0x27}, func(f *fixture) { f.cpu.sregs.CS.Selector = 0x33; f.cpu.regs.RDI = areaPage }, vectorUD},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			tt.set(f)
			before := f.cpu.regs
			f.do(tt.code...)
			f.faulted(tt.vector)
			if f.cpu.regs != before {
				t.Error("registers changed")
			}
		})
	}
}

func TestInt3(t *testing.T) {
	f := newFixture(t)
	f.do(0xcc)
	if f.cpu.injected() != vectorBP || f.cpu.regs.RIP != fakeRIP+1 || f.cpu.events.Exception.HasErrorCode != 0 {
		t.Fatalf("events %+v, rip %#x", f.cpu.events.Exception, f.cpu.regs.RIP)
	}
}

func TestSysret(t *testing.T) {
	f := newFixture(t)
	f.cpu.regs.RCX, f.cpu.regs.R11 = 0x401000, ^uint64(0)
	f.do(0x48, 0x0f, 0x07)
	s, r := f.cpu.sregs, f.cpu.regs
	if s.CS.Selector != 0x33 || s.CS.DPL != 3 || s.CS.L != 1 || s.CS.DB != 0 || s.SS.Selector != 0x2b || s.SS.DPL != 3 {
		t.Errorf("cs %+v ss %+v", s.CS, s.SS)
	}
	if r.RIP != 0x401000 || r.RFLAGS != sysretFlags|flagReserved {
		t.Errorf("rip %#x rflags %#x", r.RIP, r.RFLAGS)
	}
	f = newFixture(t)
	f.cpu.regs.RCX = 0xf_0040_1000
	f.do(0x0f, 0x07) // to 32-bit code
	if s := f.cpu.sregs; s.CS.Selector != 0x23 || s.CS.L != 0 || s.CS.DB != 1 || f.cpu.regs.RIP != 0x401000 {
		t.Errorf("cs %+v rip %#x", s.CS, f.cpu.regs.RIP)
	}
}

// TestUnknown: the error names everything that is needed to add the entry.
func TestUnknown(t *testing.T) {
	for _, code := range [][]byte{
		{0x0f, 0xc7, 0x27},       // xsavec
		{0x0f, 0xc7, 0x2f},       // xsaves
		{0x0f, 0x37},             // getsec
		{0xc5, 0xfd, 0x6f, 0x07}, // vmovdqa
		{0x66},                   // cut off
		{0x0f, 0xc7, 0x0f},       // cmpxchg8b
		{0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66},
	} {
		f := newFixture(t)
		handled, err := f.v.Exit(emulationExit(code))
		if handled || err == nil {
			t.Errorf("% x: handled %v, %v", code, handled, err)
			continue
		}
		for _, want := range []string{fmt.Sprintf("% x", code), "0x10000", "report"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
		if f.cpu.injected() >= 0 {
			t.Errorf("% x: exception injected", code)
		}
	}
}

// TestCodeFromMemory: an older KVM gives no instruction bytes.
func TestCodeFromMemory(t *testing.T) {
	f := newFixture(t)
	f.cpu.regs.RBX = 0xff
	f.cpu.regs.RIP = areaPage + 0xffe // crosses into a page that is elsewhere
	f.put(areaPhys0+0xffe, 0xf3, 0x0f)
	f.put(areaPhys1, 0xb8, 0xc3)
	handled, err := f.v.Exit(emulationExit(nil))
	if err != nil || !handled || f.cpu.regs.RAX != 8 || f.cpu.regs.RIP != areaPage+0x1002 {
		t.Fatalf("handled %v, %v, rax %d rip %#x", handled, err, f.cpu.regs.RAX, f.cpu.regs.RIP)
	}
}

func TestOtherExits(t *testing.T) {
	f := newFixture(t)
	for _, e := range []kvm.Exit{
		{Reason: kvm.ExitDebug}, // no breakpoint set
		{Reason: kvm.ExitMMIO},
		{Reason: kvm.ExitInternalError, Internal: kvm.InternalExit{Suberror: kvm.InternalErrorDeliveryEv}},
	} {
		if handled, err := f.v.Exit(&e); handled || err != nil {
			t.Errorf("%s: handled %v, %v", e.Reason, handled, err)
		}
	}
}

// FuzzDecode: any bytes and any registers end as a finished instruction, an
// exception or an error.
func FuzzDecode(f *testing.F) {
	for _, tt := range instCases {
		f.Add(tt.code, uint64(fakeData), uint64(0))
	}
	f.Add([]byte{0x0f, 0xae, 0x27}, uint64(areaPage+64), uint64(7))
	f.Add([]byte{0x0f, 0xae, 0x2f}, uint64(areaPage+64), uint64(7))
	f.Fuzz(func(t *testing.T, code []byte, a, b uint64) {
		fx := newFixture(t)
		r := &fx.cpu.regs
		r.RAX, r.RBX, r.RCX, r.RDX, r.RDI, r.RSI = b, a, bits.Reverse64(a), a^b, a, b
		fx.put(fakeCode, code[:min(len(code), 16)]...)
		_, _ = fx.v.Exit(emulationExit(code[:min(len(code), maxInst)]))
	})
}
