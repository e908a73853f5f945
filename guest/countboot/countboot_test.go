package countboot

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/vmm/boot"
)

func TestImageIsPVH(t *testing.T) {
	low := []segment{{0x500, []byte("12345678")}, {0x9000, []byte("abcd")}}
	stub, err := newStub(boot.Entry{RIP: 0x1000123, StartInfo: 0x6000, GDT: 0x500}, low, false)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(stub, []byte("12345678abcd")) {
		t.Errorf("the stub ends with % x", stub[len(stub)-12:])
	}
	f, err := elf.NewFile(bytes.NewReader(elfImage([]segment{{stubAt, stub}, {0x1000000, []byte("kernel")}}, stubAt)))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Progs) != 3 || f.Progs[0].Type != elf.PT_NOTE || f.Progs[1].Type != elf.PT_LOAD || f.Progs[2].Paddr != 0x1000000 {
		t.Fatalf("segments %v", f.Progs)
	}
	note, kernel := make([]byte, f.Progs[0].Filesz), make([]byte, 6)
	for i, p := range [][]byte{note, nil, kernel} {
		if _, err := f.Progs[i].ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if f.ByteOrder.Uint32(note[8:]) != 18 || string(note[12:16]) != "Xen\x00" || f.ByteOrder.Uint32(note[16:]) != stubAt || string(kernel) != "kernel" {
		t.Errorf("note % x, kernel %q", note, kernel)
	}
}

func TestFullPages(t *testing.T) {
	mem, err := guestmem.Alloc(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	for _, at := range []uint64{0x1000, 0x2fff, lowEnd - 1, lowEnd, 0x200008} {
		if err := mem.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
	}
	var got [][2]uint64
	for _, s := range fullPages(mem) {
		got = append(got, [2]uint64{s.addr, uint64(len(s.data))})
	}
	want := [][2]uint64{{0x1000, 0x2000}, {lowEnd - pageSize, pageSize}, {lowEnd, pageSize}, {0x200000, pageSize}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("no qemu-system-x86_64; try: apt-get install qemu-system-x86")
	}
}

func TestReadHello(t *testing.T) {
	frame := wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Kernel: "6.12"})
	h, err := readHello(context.Background(), frame)
	if err != nil || h.Kernel != "6.12" {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range [][]byte{frame[:len(frame)-1], []byte("hello, this is no frame")} {
		if h, err := readHello(context.Background(), bad); err == nil {
			t.Errorf("%q: %+v", bad, h)
		}
	}
}

const root = "../.." // of the repository

func needKernel(t *testing.T) Config {
	t.Helper()
	needQEMU(t)
	c := Config{Kernel: filepath.Join(root, "guest/out/vmlinux"), Map: filepath.Join(root, "guest/out/System.map")}
	if _, err := os.Stat(c.Kernel); err != nil {
		t.Skip("no guest/out/vmlinux; try: make kernel")
	}
	return c
}

func TestFirmwareIsRepeatable(t *testing.T) {
	c := needKernel(t)
	first, err := countFirmware(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	second, err := countFirmware(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if first != second || first == 0 || first > 1e6 {
		t.Errorf("firmware and stub took %d, then %d instructions", first, second)
	}
}

// TestGuestCount boots the real kernel with the smallest Go init, twice. The host's load moves the moment at which a byte
// of the console is taken, and with it some 50 instructions of 8 million, 2,700 on a host with five times too much to do.
func TestGuestCount(t *testing.T) {
	needKernel(t)
	var outs [2]string
	var counts [2]float64
	for i := range outs {
		cmd := exec.Command("go", "run", "./guest/cmd/count-boot", "-hello")
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		outs[i] = string(out)
		if _, err := fmt.Sscan(outs[i], &counts[i]); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if math.Abs(counts[0]-counts[1]) > counts[0]/1_000 || !strings.Contains(outs[0], "from the kernel's entry to the report") {
		t.Errorf("two counts differ:\n%s%s", outs[0], outs[1])
	}
}

func TestReadSymbols(t *testing.T) {
	file := filepath.Join(t.TempDir(), "System.map")
	text := "0000000000000000 T percpu\nffffffff81000100 t b\nffffffff81000000 T a\nffffffff81000100 T b_alias\nffffffff81000200 D data\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := readSymbols(file)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]int{0xffffffff80ffffff: -1, 0xffffffff81000000: 0, 0xffffffff810000ff: 0, 0xffffffff81000100: 1, 0xffffffff82000000: 1} {
		if got := s.find(addr); got != want {
			t.Errorf("find(%#x) = %d, want %d", addr, got, want)
		}
	}
}

// TestProfilerFollowsCalls walks a trace of start_kernel() calling b() twice, b() running
// a REP instruction, an interrupt handler, and user code.
func TestProfilerFollowsCalls(t *testing.T) {
	const a, b, irq = 0xffffffff81000000, 0xffffffff81000100, 0xffffffff81000200
	pcs := []uint64{
		0x1000,          // firmware, skipped
		0x100000,        // early
		a, a + 1, a + 2, // a calls
		b, b + 1, b + 1, b + 1, b + 2, // b with a REP of three iterations, returns
		a + 3,  // a calls
		b, irq, // interrupted
		irq + 1,      // returns
		b + 1, a + 4, // b goes on and returns to a
		0x400000, 0x400001, // user code
	}
	var trace strings.Builder
	for _, pc := range pcs {
		fmt.Fprintf(&trace, "----\nIN: \n0x%016x:  90    nop\n\n", pc)
		fmt.Fprintf(&trace, "Trace 0: 0x7fbba3800100 [0000000000000000/%016x/000000b0/ff020200] \n", pc)
	}
	trace.WriteString("Trace 0: 0x7fbba3800100 [0000000000000000/0000000000400001/000000b0/ff020200] \nStopped execution of TB chain before 0x7fbba3800100 [400001] \n")
	p := newProfiler(symbols{{a, "start_kernel"}, {b, "b"}, {irq, "irq"}}, 2)
	if err := p.RoutineRead(strings.NewReader(trace.String() + endOfTrace)); err != nil {
		t.Fatal(err)
	}
	got, sum := p.costs()
	if want := uint64(len(pcs) - 1); sum != want {
		t.Errorf("sum %d, want %d", sum, want)
	}
	want := []Cost{
		{"start_kernel", 5, 16, 7, 1, map[string]uint64{"": 5}},
		{"b", 7, 9, 9, 2, map[string]uint64{"start_kernel": 7}},
		{"irq", 2, 2, 0, 1, map[string]uint64{"b < start_kernel": 2}},
		{nameUser, 2, 2, 0, 1, nil},
		{nameRep, 2, 2, 0, 0, nil},
		{nameEarly, 1, 1, 0, 1, nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("costs (-want +got):\n%s", diff)
	}
}
