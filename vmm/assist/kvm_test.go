package assist

import (
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/kvm"
)

func testKVM(t testing.TB) *kvm.System {
	t.Helper()
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("needs KVM: %v; or run in the lab: go test -exec bin/lab ./vmm/...", err)
	}
	t.Cleanup(func() { _ = sys.Close() })
	return sys
}

// TestKVMProbe runs the probe and the cache around it.
func TestKVMProbe(t *testing.T) {
	sys := testKVM(t)
	needs, err := Probe(sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("this back-end lacks: %s", needs)
	cache := filepath.Join(t.TempDir(), "sub", "backend")
	for range 2 {
		got, err := detect(sys, cache)
		if err != nil || got != needs {
			t.Fatalf("detect = %+v, %v; Probe said %+v", got, err, needs)
		}
	}
	key, err := cacheKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := readCache(cache, key); !ok || got != needs {
		t.Fatalf("cache holds %+v, %v", got, ok)
	}
}

func probeFixture(t *testing.T) (*probeVM, Needs) {
	t.Helper()
	sys := testKVM(t)
	needs, err := Probe(sys)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProbeVM(sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, needs
}

// checkCount compares the number of assists with what the back-end needs, and
// says when that was none: then only the program itself was proved.
func checkCount(t *testing.T, needed bool, counts map[string]uint64, name string, want uint64) {
	t.Helper()
	if !needed {
		want = 0
	}
	if counts[name] != want {
		t.Errorf("assists %v, want %d times %s", counts, want, name)
	}
	if !needed {
		t.Skip("this back-end does it by itself; on software KVM (kvm_pvm) this test proves the assist")
	}
}

// TestKVMPopcntLoop: 2000 POPCNTs at CPL 0, as ../probes/emulation-assist.c.
func TestKVMPopcntLoop(t *testing.T) {
	p, needs := probeFixture(t)
	const n = 2000
	exit, vm, _, err := p.loop(needs, InstructionLoop, n)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.cpu.Regs()
	if err != nil {
		t.Fatal(err)
	}
	if exit.IO.Port != probePortDone || r.RDX != 16*n || r.RCX != 0 { // RBX has 16 bits set
		t.Errorf("%s, rdx %d rcx %d", probeOutcome(exit), r.RDX, r.RCX)
	}
	checkCount(t, needs.Emulation, vm.Counts(), "popcnt", n)
}

// TestKVMSyscallLoop: 100 SYSCALLs and SYSRETs, then UD2, as
// ../probes/syscall-cpl3.c.
func TestKVMSyscallLoop(t *testing.T) {
	p, needs := probeFixture(t)
	const n = 100
	exit, vm, _, err := p.loop(needs, SyscallLoop, n)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.cpu.Regs()
	if err != nil {
		t.Fatal(err)
	}
	if exit.IO.Port != probePortFault || exit.IO.Data[0] != vectorUD || r.RDI != n || r.RBX != 0 {
		t.Errorf("%s, %d SYSCALLs arrived, %d to go", probeOutcome(exit), r.RDI, r.RBX)
	}
	checkCount(t, needs.Syscall, vm.Counts(), "syscall", n)
}

// TestKVMCost: what lucid-bench measures with.
func TestKVMCost(t *testing.T) {
	sys := testKVM(t)
	needs, err := Probe(sys)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []Loop{InstructionLoop, SyscallLoop} {
		took, err := Cost(sys, needs, l, 100)
		if err != nil || took <= 0 {
			t.Errorf("%s: %v, %v", l.Name, took, err)
		}
		t.Logf("%s: %v", l.Name, took)
	}
}

// TestKVMWalk compares the page walk with KVM's own.
func TestKVMWalk(t *testing.T) {
	p, _ := probeFixture(t)
	if err := probeStart(p.cpu, false); err != nil {
		t.Fatal(err)
	}
	s, err := p.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	a := space{mem: p.mem, s: &s}
	for _, linear := range []uint64{0, 0x1fffff, 0x200000, probeKernel, probeKernel + 0x12345, probeKernel - 1, 1 << 40} {
		want, ok, err := p.cpu.Translate(linear)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.walk(linear, false)
		if (err == nil) != ok || ok && got != want {
			t.Errorf("%#x: walk says %#x, %v; KVM_TRANSLATE says %#x, %v", linear, got, err, want, ok)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	sys := testKVM(b)
	for b.Loop() {
		if _, err := Probe(sys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateVM(b *testing.B) {
	sys := testKVM(b)
	for b.Loop() {
		vm, err := sys.CreateVM()
		if err != nil {
			b.Fatal(err)
		}
		_ = vm.Close()
	}
}
