package vmm

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
)

// sampleState has a different value in each field that a mistake could swap.
func sampleState(vcpus int) *State {
	s := &State{Clock: 123456789, Assist: assist.State{Needs: assist.Needs{Syscall: true}, Entry: 0xffffffff81000000, Settled: true}}
	for i := range s.Chips {
		s.Chips[i].ChipID = uint32(i)
		s.Chips[i].State[511] = byte(i + 1)
	}
	for i := range vcpus {
		c := VCPUState{
			CPUID:   []kvm.CPUIDEntry{{Function: 1, EAX: 2, EBX: 3, ECX: 4, EDX: 5}, {Function: 0xd, Index: 1, Flags: 1}},
			MPState: kvm.MPState{State: kvm.MPStateHalted}, Regs: kvm.Regs{RAX: 1, R15: 2, RIP: 3, RFLAGS: uint64(i)},
			Sregs: kvm.Sregs{CR0: 1, CR4: 2, EFER: 3, APICBase: 4, TR: kvm.Segment{Base: 5, G: 1}, IDT: kvm.DTable{Base: 6, Limit: 7}},
			FPU:   make([]byte, 4096), LAPIC: make([]byte, 1024), TSCKHz: 1000000,
			XCRS:      kvm.XCRS{NrXCRs: 1},
			DebugRegs: kvm.DebugRegs{DR6: 8, DR7: 9},
			MSRs:      []kvm.MSR{{Index: kvm.MSRTSC, Data: 77}, {Index: kvm.MSRTSCDeadline, Data: 0}},
			Events:    kvm.VCPUEvents{SIPIVector: 4, Flags: 5, ExceptionPayload: 6},
		}
		c.XCRS.XCRs[0].Value = 7
		c.FPU[4095], c.LAPIC[0x20] = 9, byte(i)
		c.Events.Interrupt.Nr, c.Events.NMI.Masked = 0xec, 1
		s.VCPUs = append(s.VCPUs, c)
	}
	return s
}

func encoded(s *State) []byte {
	var w vmstate.Writer
	s.Encode(&w)
	return w.Data()
}

func TestStateRoundTrip(t *testing.T) {
	for _, n := range []int{1, MaxVCPUs} {
		s := sampleState(n)
		r := vmstate.NewReader(encoded(s))
		got := DecodeState(r)
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s, got) {
			t.Errorf("%d vCPUs: decoded %+v", n, got)
		}
	}
}

// TestStateShort cuts an encoded state everywhere.
func TestStateShort(t *testing.T) {
	data := encoded(sampleState(1))
	for n := range data {
		r := vmstate.NewReader(data[:n])
		if DecodeState(r); !errors.Is(r.Done(), vmstate.ErrCorrupt) {
			t.Fatalf("%d of %d bytes were enough", n, len(data))
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(encoded(sampleState(1)))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := vmstate.NewReader(data)
		if s := DecodeState(r); r.Err() == nil && len(s.VCPUs) > MaxVCPUs {
			t.Fatal("too many vCPUs")
		}
	})
}

func TestArmTimer(t *testing.T) {
	for _, tt := range []struct{ in, want []kvm.MSR }{
		{[]kvm.MSR{{Index: kvm.MSRTSC, Data: 5}, {Index: kvm.MSRTSCDeadline}}, []kvm.MSR{{Index: kvm.MSRTSC, Data: 5}, {Index: kvm.MSRTSCDeadline, Data: 5}}},
		{[]kvm.MSR{{Index: kvm.MSRTSC, Data: 5}, {Index: kvm.MSRTSCDeadline, Data: 9}}, []kvm.MSR{{Index: kvm.MSRTSC, Data: 5}, {Index: kvm.MSRTSCDeadline, Data: 9}}},
		{[]kvm.MSR{{Index: kvm.MSRTSC, Data: 5}}, []kvm.MSR{{Index: kvm.MSRTSC, Data: 5}}},
	} {
		if got := armTimer(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v becomes %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestOrder(t *testing.T) {
	msrs := []kvm.MSR{{Index: kvm.MSRTSCDeadline}, {Index: kvm.MSREFER}, {Index: kvm.MSRTSC}, {Index: kvm.MSRSTAR}}
	order(msrs)
	if msrs[0].Index != kvm.MSRTSC || msrs[1].Index != kvm.MSREFER || msrs[2].Index != kvm.MSRSTAR || msrs[3].Index != kvm.MSRTSCDeadline {
		t.Errorf("%+v", msrs)
	}
}

func TestSameCPUID(t *testing.T) {
	table := func() []kvm.CPUIDEntry {
		return []kvm.CPUIDEntry{{Function: 0, EAX: 0x10}, {Function: 1, ECX: 1}, {Function: 7, ECX: 2}, {Function: 0xd, EBX: 576}, {Function: 0x80000000}}
	}
	running := table()
	running[1].ECX |= ecxOSXSAVE
	running[1].EDX |= edxAPIC
	running[2].ECX |= ecxOSPKE
	running[3].EBX = 832
	if leaf, ok := sameCPUID(running, append(table(), kvm.CPUIDEntry{})); !ok {
		t.Errorf("leaf %#x differs: KVM keeps it up to date", leaf)
	}
	for i := range running {
		other := table()
		other[i].EDX++
		if leaf, ok := sameCPUID(running, other); ok || leaf != other[i].Function {
			t.Errorf("a change of leaf %#x: %#x, %t", other[i].Function, leaf, ok)
		}
	}
	if _, ok := sameCPUID(running, table()[:4]); ok {
		t.Error("a leaf more")
	}
	if leaf, ok := sameCPUID(running[:4], table()); ok || leaf != 0x80000000 {
		t.Error("a leaf less")
	}
}

func TestConfigRestoreVCPUs(t *testing.T) {
	vm := &VM{cfg: Config{VCPUs: 2, Restore: sampleState(1)}, sys: &kvm.System{}}
	if err := vm.checkRestore(assist.Needs{}); err == nil || !strings.Contains(err.Error(), "cannot save a VM") {
		t.Errorf("a KVM without capabilities: %v", err)
	}
}
