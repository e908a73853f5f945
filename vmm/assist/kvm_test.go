package assist

import (
	"log/slog"
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

// assisted runs a program on p until it writes to a port, with the assist that
// this back-end needs, and returns the port, the value and the counts.
func assisted(t *testing.T, p *probeVM, needs Needs, user bool) (port uint16, value byte, counts map[string]uint64) {
	t.Helper()
	vm := New(Config{
		Needs: needs, Memory: p.mem, CPUID: p.leaves, Log: slog.New(slog.DiscardHandler), KickAll: func() {},
	})
	v := vm.VCPU(p.cpu)
	if err := probeStart(p.cpu, user); err != nil {
		t.Fatal(err)
	}
	for {
		if err := v.AfterExit(); err != nil {
			t.Fatal(err)
		}
		if err := v.BeforeEntry(); err != nil {
			t.Fatal(err)
		}
		exit, err := p.cpu.Run()
		if err != nil {
			t.Fatal(err)
		}
		switch exit.Reason {
		case kvm.ExitIntr:
		case kvm.ExitIO:
			return exit.IO.Port, exit.IO.Data[0], vm.Counts()
		default:
			handled, err := v.Exit(&exit)
			if err != nil || !handled {
				t.Fatalf("exit %s: handled %v, %v", exit.Reason, handled, err)
			}
		}
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
	code := []byte{
		0xb9, n & 0xff, n >> 8, 0, 0, // mov $n, %ecx
		0x31, 0xd2, // xor %edx, %edx
		0xf3, 0x48, 0x0f, 0xb8, 0xc3, // 1: popcnt %rbx, %rax
		0x01, 0xc2, // add %eax, %edx
		0xff, 0xc9, // dec %ecx
		0x75, 0xf5, // jnz 1b
		0xe6, probePortDone, 0xf4,
	}
	if err := p.mem.WriteAt(code, probeKCode); err != nil {
		t.Fatal(err)
	}
	port, _, counts := assisted(t, p, needs, false)
	r, err := p.cpu.Regs()
	if err != nil {
		t.Fatal(err)
	}
	if port != probePortDone || r.RDX != 16*n || r.RCX != 0 { // RBX has 16 bits set
		t.Errorf("port %#x, rdx %d rcx %d", port, r.RDX, r.RCX)
	}
	checkCount(t, needs.Emulation, counts, "popcnt", n)
}

// TestKVMSyscallLoop: 100 SYSCALLs and SYSRETs, then UD2, as
// ../probes/syscall-cpl3.c.
func TestKVMSyscallLoop(t *testing.T) {
	p, needs := probeFixture(t)
	const n = 100
	user := []byte{
		0xbb, n, 0, 0, 0, // mov $n, %ebx
		0x31, 0xff, // xor %edi, %edi
		0x0f, 0x05, // 1: syscall
		0xff, 0xcb, // dec %ebx
		0x75, 0xfa, // jnz 1b
		0x0f, 0x0b, // ud2
	}
	kernel := []byte{
		0xff, 0xc7, // inc %edi
		0x48, 0x0f, 0x07, // sysretq
	}
	for addr, code := range map[uint64][]byte{probeUCode: user, probeHandler: kernel} {
		if err := p.mem.WriteAt(code, addr); err != nil {
			t.Fatal(err)
		}
	}
	port, vector, counts := assisted(t, p, needs, true)
	r, err := p.cpu.Regs()
	if err != nil {
		t.Fatal(err)
	}
	if port != probePortFault || vector != vectorUD || r.RDI != n || r.RBX != 0 {
		t.Errorf("port %#x vector %d, %d SYSCALLs arrived, %d to go", port, vector, r.RDI, r.RBX)
	}
	checkCount(t, needs.Syscall, counts, "syscall", n)
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
