package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

func loaded(t *testing.T, mem *guestmem.Memory, p Params) Entry {
	t.Helper()
	k, err := openBytes(t, newELF().bytes())
	if err != nil {
		t.Fatal(err)
	}
	e, err := Load(mem, k, p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func alloc(t *testing.T, size uint64) *guestmem.Memory {
	t.Helper()
	mem, err := guestmem.Alloc(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	return mem
}

func load64(t *testing.T, mem *guestmem.Memory, addr uint64) uint64 {
	t.Helper()
	v, err := mem.Load64(addr)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestStartInfo(t *testing.T) {
	const size = 5 << 30 // 3 GiB below the hole, 2 above
	mem := alloc(t, size)
	initrd := bytes.Repeat([]byte("i"), 5000)
	e := loaded(t, mem, Params{Cmdline: "quiet panic=-1", Initrd: section(initrd), VCPUs: 2})
	if e.RIP != testEntry {
		t.Fatalf("entry %#x", e.RIP)
	}
	si := uint64(e.StartInfo)
	if v := load64(t, mem, si); v != startInfoMagic|startInfoVersion<<32 {
		t.Fatalf("magic and version %#x", v)
	}
	cmd := make([]byte, 15)
	if err := mem.ReadAt(cmd, load64(t, mem, si+24)); err != nil || string(cmd) != "quiet panic=-1\x00" {
		t.Fatalf("command line %q, %v", cmd, err)
	}
	mod := load64(t, mem, si+16)
	got := make([]byte, len(initrd))
	addr := load64(t, mem, mod)
	if err := mem.ReadAt(got, addr); err != nil || !bytes.Equal(got, initrd) {
		t.Fatalf("initrd at %#x: %v", addr, err)
	}
	if n := load64(t, mem, mod+8); n != uint64(len(initrd)) || addr%guestmem.PageSize != 0 || addr+n > guestmem.GapStart {
		t.Fatalf("module %#x+%#x", addr, n)
	}
	table, n := load64(t, mem, si+40), load64(t, mem, si+48)&0xffffffff
	var ram uint64
	for i := range n {
		ram += load64(t, mem, table+i*memMapSize+8)
	}
	if n != 3 || ram != size-(highRAM-lowRAMEnd) {
		t.Fatalf("%d ranges with %#x bytes", n, ram)
	}
}

func TestMPTable(t *testing.T) {
	for _, vcpus := range []int{1, 2, 8, 32} {
		mem := alloc(t, 32<<20)
		loaded(t, mem, Params{VCPUs: vcpus})
		ptr := make([]byte, mpPointerSize)
		if err := mem.ReadAt(ptr, 639<<10); err != nil {
			t.Fatal(err)
		}
		if string(ptr[:4]) != "_MP_" || checksum(ptr) != 0 {
			t.Fatalf("floating pointer % x", ptr)
		}
		at := uint64(binary.LittleEndian.Uint32(ptr[4:]))
		head := make([]byte, mpHeaderSize)
		if err := mem.ReadAt(head, at); err != nil {
			t.Fatal(err)
		}
		table := make([]byte, binary.LittleEndian.Uint16(head[4:]))
		if err := mem.ReadAt(table, at); err != nil {
			t.Fatal(err)
		}
		if string(table[:4]) != "PCMP" || checksum(table) != 0 {
			t.Fatal("configuration table is damaged")
		}
		sizes := map[byte]int{mpEntryCPU: 20, mpEntryBus: 8, mpEntryIOAPIC: 8, mpEntryIntr: 8, mpEntryLocal: 8}
		kinds := map[byte]int{}
		entries := table[mpHeaderSize:]
		for len(entries) > 0 {
			kinds[entries[0]]++
			entries = entries[sizes[entries[0]]:]
		}
		want := map[byte]int{mpEntryCPU: vcpus, mpEntryBus: 1, mpEntryIOAPIC: 1, mpEntryIntr: IOAPICPins, mpEntryLocal: 2}
		total := 0
		for kind, n := range want {
			total += n
			if kinds[kind] != n {
				t.Errorf("%d vCPUs: %d entries of kind %d, want %d", vcpus, kinds[kind], kind, n)
			}
		}
		if count := int(binary.LittleEndian.Uint16(table[34:])); count != total {
			t.Errorf("entry count %d, want %d", count, total)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	k, err := openBytes(t, newELF().bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		size uint64
		p    Params
		want string
		is   error
	}{
		{"RAM ends below the kernel", 8 << 20, Params{VCPUs: 1}, "RAM at 8 MiB", ErrTooSmall},
		{"1 MiB", 1 << 20, Params{VCPUs: 1}, "1 MiB", ErrTooSmall},
		{"initrd larger than RAM", 20 << 20, Params{VCPUs: 1, Initrd: section(make([]byte, 21<<20))}, "initrd", ErrTooSmall},
		{"initrd meets the kernel", 20 << 20, Params{VCPUs: 1, Initrd: section(make([]byte, 4<<20))}, "initrd", ErrTooSmall},
		{"command line", 32 << 20, Params{VCPUs: 1, Cmdline: strings.Repeat("a", MaxCmdline+1)}, "command line", nil},
		{"no vCPU", 32 << 20, Params{}, "vCPUs", nil},
		{"too many vCPUs", 32 << 20, Params{VCPUs: MaxVCPUs + 1}, "vCPUs", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(alloc(t, tt.size), k, tt.p)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), k.Path()) {
				t.Fatalf("error %v, want one with %q and the file name", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("error %v is not %v", err, tt.is)
			}
		})
	}
}
