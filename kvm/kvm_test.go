package kvm

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenError: the text says what to do.
func TestOpenError(t *testing.T) {
	for _, tt := range []struct {
		errno error
		is    error
		want  string
	}{
		{unix.ENOENT, ErrNoKVM, "load kvm_intel or kvm_amd"},
		{unix.ENODEV, ErrNoKVM, "nested virtualization"},
		{unix.EACCES, fs.ErrPermission, "join the group"},
		{unix.EPERM, fs.ErrPermission, "device cgroup"},
		{unix.EMFILE, unix.EMFILE, "/dev/kvm"},
	} {
		err := openError(tt.errno)
		if !errors.Is(err, tt.is) || !errors.Is(err, tt.errno) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %q", tt.errno, err)
		}
		if tt.is != ErrNoKVM && errors.Is(err, ErrNoKVM) {
			t.Errorf("%v is not a machine without KVM", tt.errno)
		}
	}
}

// TestNotKVM: something else under the name of the device.
func TestNotKVM(t *testing.T) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := newSystem(fd); !errors.Is(err, ErrNoKVM) {
		t.Fatalf("%v", err)
	}
}

// runPage makes a VCPU whose run page says what the test wants.
func runPage(reason ExitReason, union []byte) *VCPU {
	c := &VCPU{page: make([]byte, 3*4096)}
	binary.LittleEndian.PutUint32(c.page[runExitReason:], uint32(reason))
	copy(c.page[runUnion:runUnion+runUnionSize], union)
	return c
}

func TestDecode(t *testing.T) {
	le := binary.LittleEndian
	io := []byte{1, 2}
	io = le.AppendUint16(io, 0x3f8)
	io = le.AppendUint32(io, 3)
	io = le.AppendUint64(io, 4096)
	c := runPage(ExitIO, io)
	copy(c.page[4096:], "abcdef!")
	if e := c.decode(); e.IO.Port != 0x3f8 || !e.IO.Out || e.IO.Size != 2 || e.IO.Count != 3 || string(e.IO.Data) != "abcdef" {
		t.Errorf("io %+v", e.IO)
	}

	mmio := le.AppendUint64(nil, 0xd0000050)
	mmio = append(mmio, "datadata"...)
	mmio = le.AppendUint32(mmio, 4)
	mmio = append(mmio, 0)
	c = runPage(ExitMMIO, mmio)
	e := c.decode()
	if e.MMIO.Addr != 0xd0000050 || e.MMIO.Write || string(e.MMIO.Data) != "data" {
		t.Errorf("mmio %+v", e.MMIO)
	}
	copy(e.MMIO.Data, "back")
	if string(c.page[runUnion+8:runUnion+12]) != "back" {
		t.Error("what is written to Data does not reach the run page")
	}

	internal := le.AppendUint32(nil, InternalErrorEmulation)
	internal = le.AppendUint32(internal, 2)
	internal = le.AppendUint64(internal, 7)
	internal = le.AppendUint64(internal, 8)
	if e := runPage(ExitInternalError, internal).decode(); e.Internal.Suberror != 1 || e.Internal.NData != 2 || e.Internal.Data != [16]uint64{7, 8} {
		t.Errorf("internal %+v", e.Internal)
	}
}

// TestDecodeBounds: lengths that a good kernel never writes do not become wild
// slices.
func TestDecodeBounds(t *testing.T) {
	le := binary.LittleEndian
	for _, off := range []uint64{3*4096 - 5, 3 * 4096, 1 << 40, ^uint64(0)} {
		io := []byte{0, 2, 0, 0}
		io = le.AppendUint32(io, 3)
		io = le.AppendUint64(io, off)
		if e := runPage(ExitIO, io).decode(); e.IO.Count != 0 || e.IO.Data != nil {
			t.Errorf("offset %#x: %+v", off, e.IO)
		}
	}
	mmio := make([]byte, 24)
	le.PutUint32(mmio[16:], 1000)
	if e := runPage(ExitMMIO, mmio).decode(); len(e.MMIO.Data) != 8 {
		t.Errorf("%d bytes of mmio", len(e.MMIO.Data))
	}
	internal := le.AppendUint32(nil, 1)
	internal = le.AppendUint32(internal, 1<<30)
	if e := runPage(ExitInternalError, internal).decode(); e.Internal.NData != 16 {
		t.Errorf("ndata %d", e.Internal.NData)
	}
}

func TestKick(t *testing.T) {
	c := runPage(0, nil)
	c.Kick() // nobody attached: only the flag
	if c.page[1] != 1 || c.page[0] != 0 {
		t.Fatalf("run page starts with % x", c.page[:4])
	}
	c.ClearKick()
	if c.page[1] != 0 {
		t.Fatal("the kick stays")
	}
	// After Close the page is not mapped: a late Kick must not touch it.
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	c = &VCPU{fd: -1, page: page}
	_ = c.Close() // the descriptor is none
	c.Kick()
	if err := c.Close(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("second Close: %v", err)
	}
}

func TestExitNames(t *testing.T) {
	if ExitMMIO.String() != "mmio" || ExitReason(63).String() != "exit-63" {
		t.Fatal(ExitMMIO, ExitReason(63))
	}
}

// TestKVMState moves every kind of vCPU state out and in again.
func TestKVMState(t *testing.T) {
	sys, err := Open()
	if err != nil {
		t.Skipf("needs KVM: %v; or run in the lab: go test -exec bin/lab ./kvm/...", err)
	}
	defer sys.Close()
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(vm.SetTSSAddr(0xfffbd000))
	must(vm.SetIdentityMapAddr(0xfffbc000))
	must(vm.CreateIRQChip())
	must(vm.CreatePIT2())
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	leaves, err := sys.SupportedCPUID()
	must(err)
	must(cpu.SetCPUID(leaves))
	got, err := cpu.CPUID()
	if err != nil || len(got) != len(leaves) {
		t.Errorf("%d CPUID entries of %d, %v", len(got), len(leaves), err)
	}
	regs, err := cpu.Regs()
	must(err)
	regs.R13 = 0x1234
	must(cpu.SetRegs(&regs))
	if back, err := cpu.Regs(); err != nil || back != regs {
		t.Errorf("registers %+v, %v", back, err)
	}
	sregs, err := cpu.Sregs()
	must(err)
	sregs.FS.Base = 0x5000
	must(cpu.SetSregs(&sregs))
	if back, err := cpu.Sregs(); err != nil || back.FS.Base != 0x5000 {
		t.Errorf("fs %+v, %v", back.FS, err)
	}
	must(cpu.SetMSR(MSRLSTAR, 0xffffffff81234560))
	if v, err := cpu.MSR(MSRLSTAR); err != nil || v != 0xffffffff81234560 {
		t.Errorf("LSTAR %#x, %v", v, err)
	}
	if _, err := cpu.MSR(0xdeadbeef); err == nil || !strings.Contains(err.Error(), "0xdeadbeef") {
		t.Errorf("unknown MSR: %v", err)
	}
	indices, err := sys.MSRIndexList()
	if err != nil || len(indices) < 10 {
		t.Errorf("%d MSR indices, %v", len(indices), err)
	}
	stateRoundTrip(t, vm, cpu)
	// A kick that is armed ends Run before the guest.
	cpu.ArmKick()
	if exit, err := cpu.Run(); err != nil || exit.Reason != ExitIntr {
		t.Errorf("Run gave %s, %v", exit.Reason, err)
	}
}

// stateRoundTrip reads and writes back what has no value to look at.
func stateRoundTrip(t *testing.T, vm *VM, cpu *VCPU) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	var x Xsave
	must(cpu.Xsave(&x))
	must(cpu.SetXsave(&x))
	xcrs, err := cpu.XCRS()
	must(err)
	must(cpu.SetXCRS(&xcrs))
	lapic, err := cpu.LAPIC()
	must(err)
	must(cpu.SetLAPIC(&lapic))
	mp, err := cpu.MPState()
	must(err)
	must(cpu.SetMPState(mp))
	events, err := cpu.Events()
	must(err)
	must(cpu.SetEvents(&events))
	dr, err := cpu.DebugRegs()
	must(err)
	must(cpu.SetDebugRegs(&dr))
	must(cpu.SetGuestDebug(&GuestDebug{}))
	if khz, err := cpu.TSCKHz(); err != nil || khz <= 0 {
		t.Errorf("TSC %d kHz, %v", khz, err)
	}
	clock, err := vm.Clock()
	must(err)
	clock.Flags = 0
	must(vm.SetClock(clock))
	chip, err := vm.IRQChip(IRQChipIOAPIC)
	must(err)
	must(vm.SetIRQChip(chip))
	if phys, ok, err := cpu.Translate(0x1000); err != nil || !ok || phys != 0x1000 { // real mode
		t.Errorf("translate %#x %v, %v", phys, ok, err)
	}
}
