package guestmem

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func testMemory(t *testing.T, regions ...Region) *Memory {
	t.Helper()
	m, err := FromRegions(regions...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSliceBounds(t *testing.T) {
	m := testMemory(t,
		Region{Addr: 0x100000, Host: make([]byte, 0x1000)},
		Region{Addr: 0, Host: make([]byte, 0x2000)},
		Region{Addr: 0x2000, Host: make([]byte, 0x1000)},
	)
	for _, tt := range []struct {
		name    string
		addr, n uint64
		ok      bool
	}{
		{"all of the first", 0, 0x2000, true},
		{"last byte", 0x1fff, 1, true},
		{"across two regions", 0x1fff, 2, false},
		{"second", 0x2000, 0x1000, true},
		{"one past the second", 0x2000, 0x1001, false},
		{"hole", 0x3008, 1, false},
		{"empty at the end", 0x3000, 0, true},
		{"empty in the hole", 0x4000, 0, false},
		{"third", 0x100ff8, 8, true},
		{"before the third", 0xfffff, 2, false},
		{"length wraps", 8, math.MaxUint64, false},
		{"address at the top", math.MaxUint64, 1, false},
		{"sum wraps to a good address", math.MaxUint64 - 7, 16, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := m.Slice(tt.addr, tt.n)
			if (err == nil) != tt.ok {
				t.Fatalf("Slice(%#x, %#x) error = %v, want ok %v", tt.addr, tt.n, err, tt.ok)
			}
			if err != nil && !errors.Is(err, ErrRange) {
				t.Fatalf("error %v is not ErrRange", err)
			}
			if err == nil && (uint64(len(p)) != tt.n || uint64(cap(p)) != tt.n) {
				t.Fatalf("len %d cap %d, want %d", len(p), cap(p), tt.n)
			}
		})
	}
}

func TestReadWriteAcrossRegions(t *testing.T) {
	m := testMemory(t,
		Region{Addr: 0, Host: make([]byte, 0x1000)},
		Region{Addr: 0x1000, Host: make([]byte, 0x1000)},
	)
	want := []byte("across the border")
	if err := m.WriteAt(want, 0xff8); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := m.ReadAt(got, 0xff8); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read %q, want %q", got, want)
	}
	if err := m.WriteAt(want, 0x1ff8); !errors.Is(err, ErrRange) {
		t.Fatalf("write past the end: %v", err)
	}
	if err := m.ReadAt(got, math.MaxUint64-3); !errors.Is(err, ErrRange) {
		t.Fatalf("read that wraps: %v", err)
	}
	if err := m.ReadAt(nil, 5); err != nil {
		t.Fatalf("empty read: %v", err)
	}
}

func TestAtomics(t *testing.T) {
	m := testMemory(t, Region{Addr: 0x1000, Host: make([]byte, 64)})
	if err := m.Store64(0x1000, 0x1122334455667788); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load16(0x1002); err != nil || v != 0x5566 {
		t.Fatalf("Load16 = %#x, %v", v, err)
	}
	if err := m.Store16(0x1004, 0xabcd); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load32(0x1004); err != nil || v != 0x1122abcd {
		t.Fatalf("Load32 = %#x, %v", v, err)
	}
	if err := m.Store32(0x1000, 7); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load64(0x1000); err != nil || v != 0x1122abcd00000007 {
		t.Fatalf("Load64 = %#x, %v", v, err)
	}
	if _, err := m.Load16(0x1001); !errors.Is(err, ErrAlign) {
		t.Fatalf("unaligned: %v", err)
	}
	if err := m.Store64(0x1040, 1); !errors.Is(err, ErrRange) {
		t.Fatalf("past the end: %v", err)
	}
}

// TestStore16Neighbours fails if a 16-bit store can undo a store next to it.
func TestStore16Neighbours(t *testing.T) {
	m := testMemory(t, Region{Addr: 0, Host: make([]byte, 8)})
	var wg sync.WaitGroup
	for half := range uint64(2) {
		wg.Go(func() {
			for i := range uint16(20000) {
				if err := m.Store16(half*2, i); err != nil {
					t.Error(err)
					return
				}
				if v, _ := m.Load16(half * 2); v != i {
					t.Errorf("half %d: read %d after writing %d", half, v, i)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAlloc(t *testing.T) {
	for _, size := range []uint64{0, 1, 4097, MaxSize + PageSize, math.MaxUint64 - PageSize + 1} {
		if m, err := Alloc(size); err == nil {
			_ = m.Close()
			t.Errorf("Alloc(%d) worked", size)
		}
	}
	m, err := Alloc(GapStart + 2*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	r := m.Regions()
	if len(r) != 2 || r[0].Addr != 0 || r[0].end() != GapStart || r[1].Addr != GapEnd || r[1].end() != GapEnd+2*PageSize {
		t.Fatalf("regions: %d, want RAM to 3 GiB and from 4 GiB", len(r))
	}
	if m.Size() != GapStart+2*PageSize {
		t.Fatalf("Size = %d", m.Size())
	}
	if _, err := m.Slice(GapStart, 1); !errors.Is(err, ErrRange) {
		t.Fatalf("the hole is RAM: %v", err)
	}
	if err := m.Store64(GapEnd+PageSize, 42); err != nil {
		t.Fatal(err)
	}
}

func TestFromRegionsRefuses(t *testing.T) {
	ok := make([]byte, 16)
	for name, regions := range map[string][]Region{
		"none":           {},
		"empty":          {{Addr: 0, Host: nil}},
		"overlap":        {{Addr: 0, Host: ok}, {Addr: 8, Host: ok}},
		"wrap":           {{Addr: math.MaxUint64 - 7, Host: ok}},
		"unaligned base": {{Addr: 4, Host: ok}},
		"unaligned size": {{Addr: 0, Host: ok[:12]}},
		"unaligned host": {{Addr: 0, Host: ok[4:12]}},
	} {
		if _, err := FromRegions(regions...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	m, err := Alloc(PageSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkLoad16(b *testing.B) {
	m, err := Alloc(GapStart + PageSize)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for b.Loop() {
		if _, err := m.Load16(GapEnd + 2); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAllocApart: next to the guest's RAM, as much as a page on each side, is nothing that can be read or written.
func TestAllocApart(t *testing.T) {
	const size = 4 << 20
	m, err := Alloc(size)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	ram, err := strconv.ParseUint(fmt.Sprintf("%p", m.regions[0].Host), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	if ram%hugePage != 0 {
		t.Errorf("RAM at %#x, want a multiple of %#x", ram, hugePage)
	}
	found := 0
	for line := range strings.Lines(string(maps)) {
		var start, end uint64
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &perms); n != 3 || end < ram || start > ram+size {
			continue
		}
		found++
		switch {
		case start == ram && end == ram+size && perms == "rw-p":
		case (end == ram || start == ram+size) && perms == "---p":
		default:
			t.Errorf("the RAM is %#x-%#x, and there is: %s", ram, ram+size, line)
		}
	}
	if found != 3 {
		t.Errorf("%d mappings at the RAM, want itself and one on each side:\n%s", found, maps)
	}
}
