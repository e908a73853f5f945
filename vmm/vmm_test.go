package vmm

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

func TestConfigCheck(t *testing.T) {
	mem := testMemory(t, 1<<20)
	dev := Device{Name: "d", Handler: &recorder{}, IRQ: new(eventfd.FD)}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // "": fine
	}{
		{"fine", Config{Memory: mem, VCPUs: 1, Devices: []Device{dev}}, ""},
		{"no memory", Config{VCPUs: 1}, "memory"},
		{"no vCPU", Config{Memory: mem}, "vCPUs"},
		{"too many vCPUs", Config{Memory: mem, VCPUs: MaxVCPUs + 1}, "vCPUs"},
		{"as many devices as lines", Config{Memory: mem, VCPUs: 1, Devices: slices.Repeat([]Device{dev}, MaxDevices)}, ""},
		{"too many devices", Config{Memory: mem, VCPUs: 1, Devices: slices.Repeat([]Device{dev}, MaxDevices+1)}, "devices"},
		{"no handler", Config{Memory: mem, VCPUs: 1, Devices: []Device{{Name: "x", IRQ: dev.IRQ}}}, "(x)"},
		{"no interrupt", Config{Memory: mem, VCPUs: 1, Devices: []Device{{Name: "x", Handler: dev.Handler}}}, "(x)"},
	} {
		err := tt.cfg.check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if tt.cfg.Log == nil && err == nil {
			t.Errorf("%s: no log", tt.name)
		}
	}
}

func TestCmdline(t *testing.T) {
	vm := &VM{cfg: Config{Cmdline: "quiet -- arg", Devices: make([]Device, 2)}}
	want := "virtio_mmio.device=0x200@0xd0000000:5 virtio_mmio.device=0x200@0xd0001000:6 quiet -- arg"
	if got := vm.cmdline(assist.Needs{}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := vm.cmdline(assist.Needs{Emulation: true}); !strings.Contains(got, ":6 clearcpuid=xsaves,") {
		t.Errorf("%q", got)
	}
}

func TestTopology(t *testing.T) {
	leaves := []kvm.CPUIDEntry{
		{Function: 1, EBX: 0xff99_1234, EDX: edxHTT},
		{Function: 4, EAX: 0xffff_ff21},
		{Function: 4, Index: 4, EAX: 0},
		{Function: 0xb, EAX: 5, EDX: 77},
		{Function: 0x1f, EAX: 5, EDX: 77},
		{Function: 0x80000008, EAX: 0x3028, ECX: 0x17007},
		{Function: 0x8000001e, EAX: 9, EBX: 9, ECX: 9},
	}
	find := func(out []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
		for _, e := range out {
			if e.Function == function && e.Index == index {
				return e
			}
		}
		return kvm.CPUIDEntry{}
	}
	for _, tt := range []struct{ id, count, shift int }{{0, 1, 0}, {0, 2, 1}, {1, 2, 1}, {4, 5, 3}, {31, 32, 5}} {
		out := topology(leaves, tt.id, tt.count)
		f := find(out, 1, 0)
		if f.EBX != uint32(tt.id)<<24|uint32(tt.count)<<16|0x1234 || (f.EDX&edxHTT != 0) != (tt.count > 1) {
			t.Errorf("%+v: leaf 1 ebx %#x edx %#x", tt, f.EBX, f.EDX)
		}
		if e := find(out, 4, 0); int(e.EAX>>26) != tt.count-1 || e.EAX&0x3fff != 0x3f21 {
			t.Errorf("%+v: leaf 4 %#x", tt, e.EAX)
		}
		if e := find(out, 4, 4); e.EAX != 0 {
			t.Errorf("%+v: the end of leaf 4 is %#x", tt, e.EAX)
		}
		core := find(out, 0xb, 1)
		if core.EAX != uint32(tt.shift) || core.EBX != uint32(tt.count) || core.EDX != uint32(tt.id) || core.ECX != 0x201 {
			t.Errorf("%+v: leaf 0xb %+v", tt, core)
		}
		if e := find(out, 0x1f, 0); e.Function != 0 {
			t.Errorf("%+v: the host's leaf 0x1f is there", tt)
		}
		if e := find(out, 0x80000008, 0); e.ECX != 0x10000|uint32(tt.shift)<<12|uint32(tt.count-1) || e.EAX != 0x3028 {
			t.Errorf("%+v: leaf 0x80000008 %#x", tt, e.ECX)
		}
		if e := find(out, 0x8000001e, 0); e.EAX != uint32(tt.id) || e.ECX != 0 {
			t.Errorf("%+v: leaf 0x8000001e %+v", tt, e)
		}
	}
	if leaves[0].EBX != 0xff99_1234 {
		t.Error("the common leaves changed")
	}
	if out := topology(leaves[:1], 0, 1); find(out, 0xb, 0).Function != 0 || len(out) != 1 {
		t.Error("leaf 0xb appears on a CPU without it")
	}
}

func TestPortRead(t *testing.T) {
	v := &vcpu{vm: &VM{cfg: Config{PIO: portBus(t, 0x3f0, 8, &recorder{})}}}
	for port, want := range map[uint16]byte{0x3f4: 4, 0x2f8: 0xff, 0x61: 0xff, cmosDataPort: 0} {
		p := []byte{0xaa}
		if v.portRead(port, p); p[0] != want {
			t.Errorf("port %#x reads %#x, want %#x", port, p[0], want)
		}
	}
	v.vm.cfg.PIO = nil
	p := []byte{0, 0}
	if v.portRead(0x3f4, p); p[0] != 0xff || p[1] != 0xff {
		t.Errorf("without a bus: % x", p)
	}
}

// TestPauseHeldUp: a vCPU that a device keeps cannot be paused, and nobody waits
// for it for ever.
func TestPauseHeldUp(t *testing.T) {
	vm := &VM{live: 1}
	vm.moved = sync.NewCond(&vm.mu)
	if err := vm.Pause(); !errors.Is(err, ErrHeldUp) {
		t.Fatalf("Pause = %v", err)
	}
	if goal := vm.goal.Load(); goal != goalRun {
		t.Fatalf("goal %d after it", goal)
	}
}
