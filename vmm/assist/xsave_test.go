package assist

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/lucid-containers/lucid/kvm"
)

var (
	codeXSAVE    = []byte{0x48, 0x0f, 0xae, 0x27} // xsave64 (%rdi)
	codeXSAVEOPT = []byte{0x48, 0x0f, 0xae, 0x37} // xsaveopt64 (%rdi)
	codeXRSTOR   = []byte{0x48, 0x0f, 0xae, 0x2f} // xrstor64 (%rdi)
)

const (
	areaAddr = areaPage + 0xe00 // header in one page, AVX in the next: 0xe00+576 > 0x1000
	areaSize = 832
)

// xsaveFixture has a recognisable FPU state and a recognisable area.
func xsaveFixture(t *testing.T) *fixture {
	f := newFixture(t)
	x := f.cpu.xsave.Region[:]
	for i := range areaSize {
		x[i] = byte(i*7 + i>>8)
	}
	copy(x[xsMXCSR:], []byte{0x80, 0x1f, 0, 0, 0xff, 0xff, 2, 0})
	clear(x[xsHeader:xsExt])
	x[xsHeader] = 7
	f.setArea(bytes.Repeat([]byte{0xee}, areaSize))
	f.setHeader(0)
	f.cpu.regs.RDI, f.cpu.regs.RAX, f.cpu.regs.RDX = areaAddr, 0xffffffff, 0xffffffff
	return f
}

func (f *fixture) setArea(p []byte) {
	f.put(areaPhys0+0xe00, p[:0x200]...)
	f.put(areaPhys1, p[0x200:]...)
}

func (f *fixture) area() []byte {
	return append(f.get(areaPhys0+0xe00, 0x200), f.get(areaPhys1, areaSize-0x200)...)
}

// setHeader sets XSTATE_BV and clears the rest of the header.
func (f *fixture) setHeader(bv uint64) {
	f.put(areaPhys1, make([]byte, 64)...)
	f.put64(areaPhys1, bv)
}

func TestXsaveAll(t *testing.T) {
	for _, code := range [][]byte{codeXSAVE, codeXSAVEOPT} {
		f := xsaveFixture(t)
		f.do(code...)
		f.done(4)
		got, x := f.area(), f.cpu.xsave.Region[:]
		for name, r := range map[string][2]int{
			"x87": {0, 24}, "mxcsr": {24, 32}, "st": {32, 160}, "xmm": {160, 416}, "ymm": {576, 832},
		} {
			if !bytes.Equal(got[r[0]:r[1]], x[r[0]:r[1]]) {
				t.Errorf("%s is not saved", name)
			}
		}
		if !bytes.Equal(got[416:512], bytes.Repeat([]byte{0xee}, 96)) {
			t.Error("bytes 416 to 511 are the software's")
		}
		if bv := binary.LittleEndian.Uint64(got[xsHeader:]); bv != 7 {
			t.Errorf("XSTATE_BV %#x", bv)
		}
	}
}

// TestXsaveSome: RFBM is EDX:EAX and XCR0; other components and their bits in
// XSTATE_BV stay.
func TestXsaveSome(t *testing.T) {
	f := xsaveFixture(t)
	f.setHeader(3)
	f.cpu.xsave.Region[xsHeader] = 3                   // AVX is in its initial state
	clear(f.cpu.xsave.Region[576:832])                 // and KVM says so
	f.cpu.regs.RAX, f.cpu.regs.RDX = 1<<2|1<<63>>32, 0 // AVX, and what XCR0 does not have
	f.do(codeXSAVE...)
	f.done(4)
	got := f.area()
	untouched := func(from, to int) {
		t.Helper()
		if !bytes.Equal(got[from:to], bytes.Repeat([]byte{0xee}, to-from)) {
			t.Errorf("bytes %d to %d changed", from, to)
		}
	}
	untouched(0, 24)
	untouched(32, 512)
	if !bytes.Equal(got[576:832], make([]byte, 256)) {
		t.Error("the initial AVX state is not saved")
	}
	if !bytes.Equal(got[24:32], f.cpu.xsave.Region[24:32]) {
		t.Error("AVX asks for MXCSR")
	}
	if bv := got[xsHeader]; bv != 3 {
		t.Errorf("XSTATE_BV %#x: want the old bits and not AVX", bv)
	}
}

func TestXrstorAll(t *testing.T) {
	f := xsaveFixture(t)
	want := make([]byte, areaSize)
	for i := range want {
		want[i] = byte(i*3 + 1)
	}
	copy(want[xsMXCSR:], []byte{0xc0, 0x5f, 0, 0})
	f.setArea(want)
	f.setHeader(7)
	f.do(codeXRSTOR...)
	f.done(4)
	x := f.cpu.xsave.Region[:]
	for name, r := range map[string][2]int{
		"x87": {0, 24}, "mxcsr": {24, 28}, "st": {32, 160}, "xmm": {160, 416}, "ymm": {576, 832},
	} {
		if !bytes.Equal(x[r[0]:r[1]], want[r[0]:r[1]]) {
			t.Errorf("%s is not restored", name)
		}
	}
	if bv := x[xsHeader]; bv != 7 || f.cpu.setXsave != 1 {
		t.Errorf("XSTATE_BV %#x, %d times set", bv, f.cpu.setXsave)
	}
}

// TestXrstorInit: a component in RFBM and not in XSTATE_BV gets its initial
// state, one outside RFBM stays as it is.
func TestXrstorInit(t *testing.T) {
	f := xsaveFixture(t)
	f.setHeader(1) // only x87 has a state; its bytes are 0xee
	f.put(areaPhys0+0xe00+xsMXCSR, 0x80, 0x1f, 0, 0)
	f.cpu.regs.RAX, f.cpu.regs.RDX = 5, 0 // x87 and AVX
	before := f.cpu.xsave
	f.do(codeXRSTOR...)
	f.done(4)
	x := f.cpu.xsave.Region[:]
	if !bytes.Equal(x[:24], bytes.Repeat([]byte{0xee}, 24)) {
		t.Error("x87 is not restored")
	}
	if !bytes.Equal(x[160:416], before.Region[160:416]) {
		t.Error("SSE was not asked for")
	}
	if !bytes.Equal(x[576:832], make([]byte, 256)) {
		t.Error("AVX is not initial")
	}
	if bv := x[xsHeader]; bv&4 != 0 || bv&3 != 3 {
		t.Errorf("XSTATE_BV %#x", bv)
	}

	f = xsaveFixture(t)
	f.put(areaPhys0+0xe00+xsMXCSR, 0x80, 0x1f, 0, 0)
	f.do(codeXRSTOR...) // everything initial
	f.done(4)
	x = f.cpu.xsave.Region[:]
	if binary.LittleEndian.Uint16(x) != fcwInit || !bytes.Equal(x[2:24], make([]byte, 22)) || !bytes.Equal(x[32:416], make([]byte, 384)) {
		t.Error("x87 and SSE are not initial")
	}
}

// TestXsaveRoundTrip: what one process saves and another restores in between
// comes back.
func TestXsaveRoundTrip(t *testing.T) {
	f := xsaveFixture(t)
	mine := f.cpu.xsave
	f.do(codeXSAVE...)
	for i := 160; i < 416; i++ {
		f.cpu.xsave.Region[i] = 0x55
	}
	for i := 576; i < 832; i++ {
		f.cpu.xsave.Region[i] = 0xaa
	}
	f.cpu.regs.RIP = fakeRIP
	f.do(codeXRSTOR...)
	f.done(4)
	if !bytes.Equal(f.cpu.xsave.Region[:areaSize], mine.Region[:areaSize]) {
		t.Error("the state is another")
	}
}

func TestXsaveFaults(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name   string
		code   []byte
		set    func(*fixture)
		vector int
		code2  uint32 // error code of #PF
		cr2    uint64
	}{
		{"unaligned", codeXSAVE, func(f *fixture) { f.cpu.regs.RDI += 8 }, vectorGP, 0, 0},
		{"TS", codeXSAVE, func(f *fixture) { f.cpu.sregs.CR0 |= cr0TS }, vectorNM, 0, 0},
		{"OSXSAVE off", codeXRSTOR, func(f *fixture) { f.cpu.sregs.CR4 &^= cr4OSXSAVE }, vectorUD, 0, 0},
		{"second page not there", codeXSAVE, func(f *fixture) { f.put64(pte(areaPage+0x1000), 0) }, vectorPF, 0, areaPage + 0x1000},
		{"second page not there for a read", codeXRSTOR, func(f *fixture) { f.put64(pte(areaPage+0x1000), 0) }, vectorPF, 0, areaPage + 0x1000},
		// After fork the page is shared and read-only: writing it anyway would change
		// the other process.
		{"page read-only", codeXSAVE, func(f *fixture) { f.put64(pte(areaPage), areaPhys0|pteP) }, vectorPF, pfPresent | pfWrite, areaAddr},
		{"directory read-only", codeXSAVE, func(f *fixture) { f.put64(fakePD, fakePT|pteP) }, vectorPF, pfPresent | pfWrite, areaAddr},
		{"component unknown to XCR0", codeXRSTOR, func(f *fixture) { f.setHeader(1 << 9) }, vectorGP, 0, 0},
		{"compacted", codeXRSTOR, func(f *fixture) { f.put64(areaPhys1+8, 1<<63|7) }, vectorGP, 0, 0},
		{"reserved header", codeXRSTOR, func(f *fixture) { f.put64(areaPhys1+16, 1) }, vectorGP, 0, 0},
		{"reserved MXCSR", codeXRSTOR, func(f *fixture) { f.put(areaPhys0+0xe00+xsMXCSR, le.AppendUint32(nil, 1<<31)...) }, vectorGP, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := xsaveFixture(t)
			tt.set(f)
			area := f.area()
			f.do(tt.code...)
			f.faulted(tt.vector)
			if tt.vector == vectorPF {
				if e := f.cpu.events.Exception; e.ErrorCode != tt.code2 || e.HasErrorCode != 1 || f.cpu.sregs.CR2 != tt.cr2 {
					t.Errorf("error code %#x cr2 %#x, want %#x and %#x", e.ErrorCode, f.cpu.sregs.CR2, tt.code2, tt.cr2)
				}
			}
			if f.cpu.setXsave != 0 {
				t.Error("the FPU state changed")
			}
			if tt.cr2 == areaAddr && !bytes.Equal(area, f.area()) {
				t.Error("the area changed")
			}
		})
	}
}

// TestUnknownComponent: a component without a place is a clear error, not a
// silent loss of state.
func TestUnknownComponent(t *testing.T) {
	f := xsaveFixture(t)
	f.cpu.xcr0 = 7 | 1<<9
	if _, err := f.v.Exit(emulationExit(codeXSAVE)); err == nil {
		t.Fatal("accepted")
	}
}

func TestLayout(t *testing.T) {
	entry := func(index, size, offset, flags uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: 0xd, Index: index, EAX: size, EBX: offset, ECX: flags}
	}
	l := newLayout([]kvm.CPUIDEntry{
		entry(0, 0x207, 2696, 0), entry(1, 0xf, 0, 0), entry(2, 256, 576, 0), entry(9, 8, 2688, 0),
		entry(11, 16, 0, 1),           // supervisor state: not in the standard format
		entry(18, 8192, 2816, 0),      // does not fit into struct kvm_xsave
		entry(5, 64, 100, 0),          // inside the legacy area
		entry(6, 0xfffffff0, 1024, 0), // wraps
		{Function: 7, Index: 2, EAX: 1, EBX: 600},
	})
	if len(l) != 2 || l[2] != (component{576, 256}) || l[9] != (component{2688, 8}) {
		t.Fatalf("layout %v", l)
	}
}

// TestDirty: a finished write leaves the marks that the CPU would leave.
func TestDirty(t *testing.T) {
	f := xsaveFixture(t)
	f.do(codeXSAVE...)
	for _, page := range []uint64{areaPage, areaPage + 0x1000} {
		if e := f.get64(pte(page)); e&(pteA|pteD) != pteA|pteD {
			t.Errorf("entry of %#x is %#x", page, e)
		}
	}
	if e := f.get64(fakePD); e&pteA == 0 || e&pteD != 0 {
		t.Errorf("directory entry %#x", e)
	}
}
