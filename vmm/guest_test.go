package vmm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// testKVM skips where there is no KVM.
func testKVM(t testing.TB) *kvm.System {
	t.Helper()
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("needs KVM: %v; or run in the lab: go test -exec bin/lab ./vmm/...", err)
	}
	t.Cleanup(func() { _ = sys.Close() })
	return sys
}

// testNative skips where KVM interprets the guest's kernel: a boot with all its
// messages takes minutes there. The short real set of test/e2e boots there.
func testNative(t testing.TB) {
	t.Helper()
	needs, err := assist.Detect(testKVM(t))
	if err != nil {
		t.Fatal(err)
	}
	if needs.Emulation {
		t.Skip("boots Linux, which this KVM interprets; runs in the lab")
	}
}

// Parts of guest programs, in 32-bit code as the PVH entry runs it.
func imm(op byte, v uint32) []byte   { return binary.LittleEndian.AppendUint32([]byte{op}, v) }
func movEAX(v uint32) []byte         { return imm(0xb8, v) }
func movDX(port uint32) []byte       { return imm(0xba, port) }
func loadEAX(addr uint32) []byte     { return imm(0xa1, addr) }
func storeEAX(addr uint32) []byte    { return imm(0xa3, addr) }
func outAL(port uint32) []byte       { return append(movDX(port), 0xee) }
func outEAX(port uint32) []byte      { return append(movDX(port), 0xef) }
func inEAX(port uint32) []byte       { return append(movDX(port), 0xed) }
func powerOff() []byte               { return append(movDX(PowerOffPort), 0x66, 0xef) }
func program(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
func writeTo(addr, v uint32) []byte  { return append(movEAX(v), storeEAX(addr)...) }
func spin() []byte                   { return []byte{0xeb, 0xfe} }
func incLoop(addr uint32) []byte { // 1: incl addr; jmp 1b
	return append(binary.LittleEndian.AppendUint32([]byte{0xff, 0x05}, addr), 0xeb, 0xf8)
}

const codeAddr = 0x1000000

// testProgram makes a kernel of a program.
func testProgram(t testing.TB, code []byte) boot.Kernel {
	t.Helper()
	le := binary.LittleEndian
	head := make([]byte, 64+2*56)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 2)  // ET_EXEC
	le.PutUint16(head[18:], 62) // EM_X86_64
	le.PutUint64(head[32:], 64) // e_phoff
	le.PutUint16(head[54:], 56)
	le.PutUint16(head[56:], 2)
	note := le.AppendUint32(nil, 4)
	note = le.AppendUint32(note, 4)
	note = le.AppendUint32(note, 18) // XEN_ELFNOTE_PHYS32_ENTRY
	note = le.AppendUint32(append(note, "Xen\x00"...), codeAddr)
	for i, p := range []struct {
		typ       uint32
		off, size int
	}{{1, len(head), len(code)}, {4, len(head) + len(code), len(note)}} {
		h := head[64+56*i:]
		le.PutUint32(h, p.typ)
		le.PutUint64(h[8:], uint64(p.off))
		le.PutUint64(h[24:], codeAddr)
		le.PutUint64(h[32:], uint64(p.size))
		le.PutUint64(h[40:], uint64(p.size))
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, program(head, code, note), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := boot.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// testVM makes a VM of cfg, with 32 MiB if it has no memory.
func testVM(t testing.TB, cfg Config) *VM {
	t.Helper()
	cfg.KVM = testKVM(t)
	if cfg.Memory == nil {
		cfg.Memory = testMemory(t, 32<<20)
	}
	if cfg.VCPUs == 0 {
		cfg.VCPUs = 1
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	vm, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	return vm
}

func testMemory(t testing.TB, size uint64) *guestmem.Memory {
	t.Helper()
	mem, err := guestmem.Alloc(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	return mem
}

// recorder is a window that remembers writes and answers reads with a pattern.
type recorder struct {
	mu   sync.Mutex
	seen []string
	boom bool
}

func (r *recorder) Read(off uint64, p []byte) {
	r.note(fmt.Sprintf("read %#x %d", off, len(p)))
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}

func (r *recorder) Write(off uint64, p []byte) {
	if r.boom {
		panic("boom")
	}
	r.note(fmt.Sprintf("write %#x % x", off, p))
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, s)
}

// take returns what was seen and forgets it.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.seen = nil }()
	return r.seen
}

// serial is the smallest transmit-only UART: enough for earlyprintk.
type serial struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *serial) Read(off uint64, p []byte) {
	clear(p)
	if off == 5 { // LSR: transmitter empty
		p[0] = 0x60
	}
}

func (s *serial) Write(off uint64, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off == 0 {
		s.buf.Write(p)
	}
}

func (s *serial) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// portBus puts one handler at a port.
func portBus(t testing.TB, port, size uint64, h bus.Handler) *bus.Bus {
	t.Helper()
	var b bus.Bus
	if err := b.Insert(port, size, h); err != nil {
		t.Fatal(err)
	}
	return &b
}
