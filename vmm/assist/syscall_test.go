package assist

import (
	"testing"

	"github.com/lucid-containers/lucid/kvm"
)

const (
	handlerAddr = 0x11000
	userRSP     = 0x7fff00001000
)

// gateFixture has a page-fault gate and has found it.
func gateFixture(t *testing.T, handler ...byte) *fixture {
	t.Helper()
	f := newFixture(t)
	if handler == nil {
		handler = []byte{0xf3, 0x0f, 0x1e, 0xfa} // endbr64
	}
	f.put(handlerAddr, handler...)
	f.setGate(handlerAddr, 0x8e)
	if err := f.v.AfterExit(); err != nil {
		t.Fatal(err)
	}
	if err := f.v.BeforeEntry(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) setGate(target, typ uint64) {
	f.put64(fakeIDT+14*16, target&0xffff|0x10<<16|typ<<40|target>>16&0xffff<<48)
	f.put64(fakeIDT+14*16+8, target>>32)
}

// fault puts an exception frame on the stack and the CPU into the handler, and
// lets the assist look at it.
func (f *fixture) fault(code, rip, cs, rflags uint64) error {
	f.t.Helper()
	const sp = fakeTop - 48
	for i, v := range []uint64{code, rip, cs, rflags, userRSP, 0x2b} {
		f.put64(sp+8*uint64(i), v)
	}
	f.cpu.regs.RSP, f.cpu.regs.RIP, f.cpu.regs.RFLAGS = sp, handlerAddr, flagReserved|flagDF|flagAC
	handled, err := f.v.Exit(&kvm.Exit{Reason: kvm.ExitDebug, Debug: kvm.DebugExit{Exception: vectorDB, PC: handlerAddr}})
	if err == nil && !handled {
		f.t.Fatal("the exit was not handled")
	}
	return err
}

const lstar = 0xffffffff81400000

func TestSyscall(t *testing.T) {
	f := gateFixture(t)
	f.cpu.regs.RCX = 0x401002
	const user = 0x246 | flagTF             // IF, ZF, PF
	f.cpu.regs.R11 = user | 0x3000 | flagRF // a liar: IOPL 3
	f.cpu.regs.RAX = 39
	// The frame has what the CPU's mask has left, and RF from the fault.
	if err := f.fault(0x15, lstar, 0x33, user&^(flagIF|flagTF)|flagRF); err != nil {
		t.Fatal(err)
	}
	r, s := f.cpu.regs, f.cpu.sregs
	if r.RIP != lstar || r.RSP != userRSP || r.RCX != 0x401002 || r.RAX != 39 {
		t.Errorf("rip %#x rsp %#x rcx %#x rax %d", r.RIP, r.RSP, r.RCX, r.RAX)
	}
	if r.R11 != user {
		t.Errorf("r11 %#x, want %#x: the process's flags with the frame's IOPL, the kernel gives them back with SYSRET", r.R11, user)
	}
	if r.RFLAGS != flagReserved {
		t.Errorf("rflags %#x, want all of SFMASK cleared", r.RFLAGS)
	}
	if s.CS.Selector != 0x10 || s.CS.DPL != 0 || s.CS.L != 1 || s.SS.Selector != 0x18 || s.SS.DPL != 0 || s.SS.DB != 1 {
		t.Errorf("cs %+v ss %+v", s.CS, s.SS)
	}
	if f.vm.Counts()["syscall"] != 1 {
		t.Errorf("counts %v", f.vm.Counts())
	}
}

// TestSyscallIOPL: whatever user code puts into R11 and RCX, it ends with the
// IOPL it had, and with interrupts on.
func TestSyscallIOPL(t *testing.T) {
	for _, r11 := range []uint64{0, 0x3000, ^uint64(0)} {
		f := gateFixture(t)
		f.cpu.msrs[kvm.MSRSyscallMask] = 0 // a kernel that clears nothing
		f.cpu.regs.R11 = r11
		if err := f.fault(0x15, lstar, 0x33, 0x202); err != nil {
			t.Fatal(err)
		}
		if f.cpu.regs.RFLAGS&0x3000 != 0 || f.cpu.regs.R11&^flagsUser != flagIF|flagReserved {
			t.Errorf("r11 %#x: rflags %#x r11 %#x", r11, f.cpu.regs.RFLAGS, f.cpu.regs.R11)
		}
	}
}

// TestNoSyscall: every other fault is the guest's own, and its handler goes on
// after its first instruction with nothing else changed.
func TestNoSyscall(t *testing.T) {
	for _, tt := range []struct {
		name          string
		code, rip, cs uint64
		set           func(*fixture)
	}{
		{"data fault", 0x6, 0x401000, 0x33, nothing},
		{"fetch elsewhere", 0x15, 0x401000, 0x33, nothing},
		{"next to the entry", 0x15, lstar + 1, 0x33, nothing},
		{"kernel fault", 0x11, lstar, 0x10, nothing},
		{"kernel code with a user bit", 0x15, lstar, 0x10, nothing},
		{"read of the entry by user code", 0x5, lstar, 0x33, nothing},
		{"page not present", 0x14, lstar, 0x33, nothing},
		{"SYSCALL is off", 0x15, lstar, 0x33, func(f *fixture) { f.cpu.sregs.EFER &^= eferSCE }},
		{"handler runs in user mode", 0x15, lstar, 0x33, func(f *fixture) { f.cpu.sregs.CS.Selector = 0x33 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := gateFixture(t)
			tt.set(f)
			if err := f.fault(tt.code, tt.rip, tt.cs, 0x246); err != nil {
				t.Fatal(err)
			}
			if r := f.cpu.regs; r.RIP != handlerAddr+4 || r.RSP != fakeTop-48 {
				t.Fatalf("rip %#x rsp %#x", r.RIP, r.RSP)
			}
			if len(f.cpu.setSregs) != 0 || f.vm.Counts()["page-fault-entry"] != 1 {
				t.Fatalf("%d SetSregs, counts %v", len(f.cpu.setSregs), f.vm.Counts())
			}
		})
	}
}

// TestHostileFrame: a stack pointer to nowhere is no reason to fail.
func TestHostileFrame(t *testing.T) {
	for _, rsp := range []uint64{0, 7, 2<<20 - 8, 1 << 47, 1 << 63, ^uint64(0), ^uint64(0) - 40} {
		f := gateFixture(t)
		f.cpu.regs.RSP, f.cpu.regs.RIP = rsp, handlerAddr
		_, err := f.v.Exit(&kvm.Exit{Reason: kvm.ExitDebug, Debug: kvm.DebugExit{Exception: vectorDB, PC: handlerAddr}})
		if err != nil || f.cpu.regs.RIP != handlerAddr+4 {
			t.Errorf("rsp %#x: rip %#x, %v", rsp, f.cpu.regs.RIP, err)
		}
	}
}

func TestStepOver(t *testing.T) {
	for _, tt := range []struct {
		name  string
		code  []byte
		n     uint64
		flags uint64 // what is left of DF and AC
	}{
		{"endbr64", []byte{0xf3, 0x0f, 0x1e, 0xfa}, 4, flagDF | flagAC},
		{"nop", []byte{0x90}, 1, flagDF | flagAC},
		{"nopl", []byte{0x0f, 0x1f, 0x00}, 3, flagDF | flagAC},
		{"nopw", []byte{0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}, 9, flagDF | flagAC},
		{"clac", []byte{0x0f, 0x01, 0xca}, 3, flagDF},
		{"cld", []byte{0xfc}, 1, flagAC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := gateFixture(t, tt.code...)
			if err := f.fault(0x4, 0x401000, 0x33, 0x246); err != nil {
				t.Fatal(err)
			}
			if r := f.cpu.regs; r.RIP != handlerAddr+tt.n || r.RFLAGS&(flagDF|flagAC) != tt.flags {
				t.Fatalf("rip %#x rflags %#x", r.RIP, r.RFLAGS)
			}
		})
	}
}

// TestGate: what is in gate 14 while a kernel boots.
func TestGate(t *testing.T) {
	f := newFixture(t)
	look := func(want uint64) {
		t.Helper()
		if err := f.v.AfterExit(); err != nil {
			t.Fatal(err)
		}
		if got := f.vm.PageFaultEntry(); got != want {
			t.Fatalf("entry %#x, want %#x", got, want)
		}
	}
	look(0) // an empty IDT
	f.put(0x12000, 0x6a, 0x0e)
	f.setGate(0x12000, 0x8e)
	look(0) // the early stub: push $14 is not stepped over
	f.put(handlerAddr, 0x90)
	f.setGate(handlerAddr, 0x0e)
	look(0) // not present
	f.setGate(handlerAddr, 0x8e)
	f.cpu.sregs.EFER &^= eferLMA
	look(0) // 32-bit code
	f.cpu.sregs.EFER |= eferLMA
	f.cpu.sregs.IDT.Limit = 14*16 + 14
	look(0)
	f.cpu.sregs.IDT.Limit = 0xfff
	look(handlerAddr)
	if f.kick != 1 {
		t.Fatalf("%d kicks, want one for the new entry", f.kick)
	}
	look(handlerAddr)
	if f.kick != 1 {
		t.Fatal("kicked again for the same entry")
	}
	other := f.vm.VCPU(&fakeCPU{})
	for _, v := range []*VCPU{f.v, other} {
		if err := v.BeforeEntry(); err != nil {
			t.Fatal(err)
		}
		d := v.cpu.(*fakeCPU).debug
		if d.Control != kvm.GuestDebugEnable|kvm.GuestDebugUseHWBP || d.DebugReg[0] != handlerAddr || d.DebugReg[7] != 0x402 {
			t.Fatalf("breakpoint %+v", d)
		}
	}
	// The entry moves, until a SYSCALL has proved it.
	f.put(0x13000, 0xfc)
	f.setGate(0x13000, 0x8e)
	look(0x13000)
	f.setGate(handlerAddr, 0x8e)
	look(handlerAddr)
	if err := f.v.BeforeEntry(); err != nil {
		t.Fatal(err)
	}
	if err := f.fault(0x15, lstar, 0x33, 0x246); err != nil {
		t.Fatal(err)
	}
	f.setGate(0x13000, 0x8e)
	look(handlerAddr)
}

// TestHandlerPatched: a handler that cannot be stepped over any more costs the
// breakpoint, not the VM.
func TestHandlerPatched(t *testing.T) {
	f := gateFixture(t)
	f.put(handlerAddr, 0xe8, 0, 0, 0, 0)
	if err := f.fault(0x4, 0x401000, 0x33, 0x246); err != nil {
		t.Fatal(err)
	}
	if f.cpu.regs.RIP != handlerAddr || f.cpu.debug.Control != 0 || f.vm.PageFaultEntry() != 0 {
		t.Fatalf("rip %#x debug %+v", f.cpu.regs.RIP, f.cpu.debug)
	}
}

// TestDebugOfGuest: a single step of a debugger in the guest is given back.
func TestDebugOfGuest(t *testing.T) {
	f := gateFixture(t)
	f.cpu.regs.RIP = 0x401000
	handled, err := f.v.Exit(&kvm.Exit{Reason: kvm.ExitDebug, Debug: kvm.DebugExit{Exception: vectorDB, PC: 0x401000, DR6: 0xffff4ff0}})
	if err != nil || !handled {
		t.Fatal(handled, err)
	}
	if f.cpu.injected() != vectorDB || f.cpu.dr.DR6 != 0xffff4ff0 {
		t.Fatalf("exception %d dr6 %#x", f.cpu.injected(), f.cpu.dr.DR6)
	}
}

func TestNeeds(t *testing.T) {
	if n := (Needs{}); n.Any() || n.String() != "nothing" {
		t.Fatalf("%v", n)
	}
	if n := (Needs{Emulation: true, Syscall: true}); !n.Any() || n.String() == "nothing" {
		t.Fatalf("%v", n)
	}
}

func TestCmdline(t *testing.T) {
	const ours = "clearcpuid=xsaves,xsavec,xsaveopt,smap,popcnt,cx16,erms,fsrm tick_step=10"
	software := Needs{Emulation: true, Syscall: true}
	for _, tt := range []struct {
		needs    Needs
		in, want string
	}{
		{Needs{}, "quiet clearcpuid=erms", "quiet clearcpuid=erms"},
		{Needs{Syscall: true}, "quiet", "quiet"},
		{software, "", ours},
		{software, "quiet panic=-1", ours + " quiet panic=-1"},
		{software, "quiet clearcpuid=erms,fsrm tsc=reliable", "clearcpuid=erms,fsrm,xsaves,xsavec,xsaveopt,smap,popcnt,cx16 tick_step=10 quiet tsc=reliable"},
		{software, "clearcpuid=la57 a clearcpuid=smap", "clearcpuid=la57,smap,xsaves,xsavec,xsaveopt,popcnt,cx16,erms,fsrm tick_step=10 a"},
		{software, `x="a  b" noclearcpuid=1 -- clearcpuid=init`, ours + ` x="a  b" noclearcpuid=1 -- clearcpuid=init`},
	} {
		if got := tt.needs.Cmdline(tt.in); got != tt.want {
			t.Errorf("%+v, %q:\n got %q\nwant %q", tt.needs, tt.in, got, tt.want)
		}
	}
}

// FuzzFrame: any frame, flags and selectors end as a step over the handler's
// first instruction, or as a SYSCALL whose state is the kernel's and whose IOPL
// is the frame's.
func FuzzFrame(f *testing.F) {
	f.Add(uint64(0x15), uint64(lstar), uint64(0x33), uint64(0x246), uint64(0x3246), uint64(fakeTop-48))
	f.Add(uint64(0x6), uint64(0x401000), uint64(0x33), uint64(0x246), uint64(0), uint64(1<<47))
	f.Fuzz(func(t *testing.T, code, rip, cs, rflags, r11, rsp uint64) {
		fx := gateFixture(t)
		fx.cpu.regs.R11 = r11
		fx.cpu.msrs[kvm.MSRSyscallMask] = r11 // any mask, too
		for i, v := range []uint64{code, rip, cs, rflags, userRSP, 0x2b} {
			if addr := rsp&^7 + 8*uint64(i); addr < 1<<20 && addr > fakeTop-4096 && addr < fakeTop {
				fx.put64(addr, v)
			}
		}
		fx.cpu.regs.RSP, fx.cpu.regs.RIP = rsp&^7, handlerAddr
		if _, err := fx.v.Exit(&kvm.Exit{Reason: kvm.ExitDebug}); err != nil {
			t.Fatal(err)
		}
		switch r := fx.cpu.regs; r.RIP {
		case handlerAddr + 4:
		case lstar:
			if fx.cpu.sregs.CS.Selector != 0x10 ||
				(r.R11^rflags)&^(flagsUser|flagRF|flagVM|flagIF|flagReserved) != 0 || r.R11&flagIF == 0 || r.RFLAGS&^r.R11&^flagReserved != 0 {
				t.Fatalf("cs %#x r11 %#x rflags %#x of frame flags %#x", fx.cpu.sregs.CS.Selector, r.R11, r.RFLAGS, rflags)
			}
		default:
			t.Fatalf("rip %#x", r.RIP)
		}
	})
}
