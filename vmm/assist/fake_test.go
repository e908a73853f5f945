package assist

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"testing"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
)

// fakeCPU is a vCPU that only holds state.
type fakeCPU struct {
	regs   kvm.Regs
	sregs  kvm.Sregs
	xsave  kvm.Xsave
	xcr0   uint64
	msrs   map[uint32]uint64
	events kvm.VCPUEvents
	dr     kvm.DebugRegs
	debug  kvm.GuestDebug

	setSregs []kvm.Sregs // every SetSregs, in order
	setXsave int
}

func (f *fakeCPU) Regs() (kvm.Regs, error)   { return f.regs, nil }
func (f *fakeCPU) SetRegs(r *kvm.Regs) error { f.regs = *r; return nil }
func (f *fakeCPU) Sregs() (kvm.Sregs, error) { return f.sregs, nil }
func (f *fakeCPU) SetSregs(s *kvm.Sregs) error {
	f.sregs = *s
	f.setSregs = append(f.setSregs, *s)
	return nil
}
func (f *fakeCPU) Xsave(x *kvm.Xsave) error    { *x = f.xsave; return nil }
func (f *fakeCPU) SetXsave(x *kvm.Xsave) error { f.xsave = *x; f.setXsave++; return nil }
func (f *fakeCPU) XCRS() (kvm.XCRS, error) {
	x := kvm.XCRS{NrXCRs: 1}
	x.XCRs[0].Value = f.xcr0
	return x, nil
}

func (f *fakeCPU) MSR(index uint32) (uint64, error) {
	v, ok := f.msrs[index]
	if !ok {
		return 0, fmt.Errorf("no MSR %#x", index)
	}
	return v, nil
}
func (f *fakeCPU) SetMSR(index uint32, v uint64) error   { f.msrs[index] = v; return nil }
func (f *fakeCPU) Events() (kvm.VCPUEvents, error)       { return f.events, nil }
func (f *fakeCPU) SetEvents(e *kvm.VCPUEvents) error     { f.events = *e; return nil }
func (f *fakeCPU) DebugRegs() (kvm.DebugRegs, error)     { return f.dr, nil }
func (f *fakeCPU) SetDebugRegs(d *kvm.DebugRegs) error   { f.dr = *d; return nil }
func (f *fakeCPU) SetGuestDebug(d *kvm.GuestDebug) error { f.debug = *d; return nil }

// injected returns the exception that the guest would take, or -1.
func (f *fakeCPU) injected() int {
	if f.events.Exception.Injected == 0 {
		return -1
	}
	return int(f.events.Exception.Nr)
}

// Where things are in the fake guest: the first 2 MiB are mapped one to one in
// 4 KiB pages, except that areaPage and the page after it lie elsewhere, apart
// and in the wrong order.
const (
	fakePML4 = 0x1000
	fakePDPT = 0x2000
	fakePD   = 0x3000
	fakePT   = 0x4000
	fakeCode = 0x10000
	fakeData = 0x20000 // operands
	fakeIDT  = 0x30000
	fakeGDT  = 0x31000
	fakeTop  = 0x40000 // stack
	fakeRIP  = fakeCode

	areaPage  = 0x50000
	areaPhys0 = 0x80000
	areaPhys1 = 0x60000
)

type fixture struct {
	t    *testing.T
	cpu  *fakeCPU
	mem  *guestmem.Memory
	vm   *VM
	v    *VCPU
	kick int
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	mem, err := guestmem.Alloc(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	f := &fixture{t: t, mem: mem}
	const flags = pteP | pteRW | 4
	f.put64(fakePML4, fakePDPT|flags)
	f.put64(fakePDPT, fakePD|flags)
	f.put64(fakePD, fakePT|flags)
	for i := range uint64(512) {
		f.put64(fakePT+8*i, i<<12|flags)
	}
	f.put64(pte(areaPage), areaPhys0|flags)
	f.put64(pte(areaPage+0x1000), areaPhys1|flags)

	f.cpu = &fakeCPU{
		xcr0: 7,
		msrs: map[uint32]uint64{
			kvm.MSRSTAR:         0x23<<48 | 0x10<<32,
			kvm.MSRLSTAR:        0xffffffff81400000,
			kvm.MSRSyscallMask:  0x257fd5,
			kvm.MSRKernelGSBase: 0x1111,
			kvm.MSRTSC:          0x1_0000_0002,
			kvm.MSRTSCAux:       3,
		},
	}
	f.cpu.regs = kvm.Regs{RIP: fakeRIP, RSP: fakeTop, RFLAGS: flagReserved | flagRF}
	f.cpu.sregs = kvm.Sregs{
		CR0: cr0PG | cr0WP | 1, CR3: fakePML4, CR4: 1<<5 | cr4OSXSAVE | cr4FSGSBASE,
		EFER: eferLMA | 1<<8 | eferSCE,
		CS:   kvm.Segment{Selector: 0x10, L: 1, Present: 1},
		SS:   kvm.Segment{Selector: 0x18, Present: 1},
		GS:   kvm.Segment{Base: 0x2222},
		FS:   kvm.Segment{Base: 0x3333},
		GDT:  kvm.DTable{Base: fakeGDT, Limit: 0x7f},
		IDT:  kvm.DTable{Base: fakeIDT, Limit: 0xfff},
	}
	f.vm = New(Config{
		Needs: Needs{Emulation: true, Syscall: true}, Memory: mem, Log: slog.New(slog.DiscardHandler),
		CPUID: []kvm.CPUIDEntry{
			{Function: 0xd, Index: 0, EAX: 7, EBX: 832},
			{Function: 0xd, Index: 2, EAX: 256, EBX: 576},
		},
		KickAll: func() { f.kick++ },
	})
	f.v = f.vm.VCPU(f.cpu)
	return f
}

// pte is where the page-table entry of a linear address is.
func pte(linear uint64) uint64 { return fakePT + linear>>12*8 }

func (f *fixture) put64(addr, v uint64) {
	f.t.Helper()
	if err := f.mem.Store64(addr, v); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) get64(addr uint64) uint64 {
	f.t.Helper()
	v, err := f.mem.Load64(addr)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) put(addr uint64, p ...byte) {
	f.t.Helper()
	if err := f.mem.WriteAt(p, addr); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) get(addr uint64, n int) []byte {
	f.t.Helper()
	p := make([]byte, n)
	if err := f.mem.ReadAt(p, addr); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// emulationExit is what KVM reports for code; no bytes if it has none.
func emulationExit(code []byte) *kvm.Exit {
	e := &kvm.Exit{Reason: kvm.ExitInternalError}
	e.Internal.Suberror = kvm.InternalErrorEmulation
	e.Internal.NData = 3
	if len(code) == 0 {
		return e
	}
	e.Internal.Data[0] = kvm.EmulationFlagInstrBytes
	var b [16]byte
	b[0] = byte(len(code))
	copy(b[1:], code)
	e.Internal.Data[1] = binary.LittleEndian.Uint64(b[:])
	e.Internal.Data[2] = binary.LittleEndian.Uint64(b[8:])
	return e
}

// do finishes one instruction and fails the test if it cannot.
func (f *fixture) do(code ...byte) {
	f.t.Helper()
	handled, err := f.v.Exit(emulationExit(code))
	if err != nil || !handled {
		f.t.Fatalf("% x: handled %v, %v", code, handled, err)
	}
}

// done checks that an instruction of n bytes is over and gave no exception.
func (f *fixture) done(n int) {
	f.t.Helper()
	if v := f.cpu.injected(); v >= 0 {
		f.t.Fatalf("exception %d", v)
	}
	if f.cpu.regs.RIP != fakeRIP+uint64(n) {
		f.t.Fatalf("rip %#x, want %d bytes on", f.cpu.regs.RIP, n)
	}
	if f.cpu.regs.RFLAGS&flagRF != 0 {
		f.t.Fatal("RF is still set")
	}
}

// faulted checks that the instruction gave an exception and changed no register.
func (f *fixture) faulted(vector int) {
	f.t.Helper()
	if v := f.cpu.injected(); v != vector {
		f.t.Fatalf("exception %d, want %d", v, vector)
	}
	if f.cpu.regs.RIP != fakeRIP {
		f.t.Fatalf("rip moved to %#x", f.cpu.regs.RIP)
	}
}
