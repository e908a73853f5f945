package virtq_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/internal/guestmem"
)

const fuzzRAM = 64 << 10

// FuzzRing takes bytes as the set-up of a queue, then as a list of what driver
// and device do: the driver scribbles anywhere in a small RAM, the device calls
// the queue. Addresses and values are bent towards what is interesting.
func FuzzRing(f *testing.F) {
	f.Add([]byte{3, 0xff, 0, 0x10, 0, 0x20, 0, 0x30, 0, 1, 4, 0, 1, 2, 3, 4, 5})
	f.Add([]byte{0, 3, 1, 0, 1, 0, 1, 0, 0, 0, 0x10, 8, 2, 1, 1, 4, 2, 3, 0})
	f.Add([]byte{8, 1, 0xf0, 0xff, 0xf8, 0xff, 0, 0, 2, 4, 2, 3, 3, 1})
	kick, err := eventfd.New()
	if err != nil {
		f.Fatal(err)
	}
	ram := make([]byte, fuzzRAM)
	mem, err := guestmem.FromRegions(
		guestmem.Region{Addr: 0, Host: ram[: fuzzRAM/2 : fuzzRAM/2]},
		guestmem.Region{Addr: fuzzRAM, Host: ram[fuzzRAM/2:]},
	)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		clear(ram)
		in := &input{data: data}
		cfg := virtq.Config{
			Mem: mem, Size: 1 << (in.byte() % 10), Kick: kick, Interrupt: func() {},
		}
		flags := in.byte()
		cfg.EventIdx, cfg.Indirect = flags&1 != 0, flags&2 != 0
		cfg.Desc, cfg.Avail, cfg.Used = in.addr()&^15, in.addr()&^1, in.addr()&^3
		q, err := virtq.New(cfg)
		if err != nil {
			if !errors.Is(err, virtq.ErrRing) {
				t.Fatal(err)
			}
			return
		}
		fuzzOps(t, in, q, &cfg, mem, ram)
	})
}

func fuzzOps(t *testing.T, in *input, q *virtq.Queue, cfg *virtq.Config, mem *guestmem.Memory, ram []byte) {
	var held []*virtq.Chain
	var failed error
	for step := 0; len(in.data) > 0 && step < 2000; step++ {
		switch in.byte() % 8 {
		case 0: // any store
			_ = mem.Store16(in.addr()&^1, in.u16())
		case 1: // a descriptor
			d := cfg.Desc + uint64(in.u16()%cfg.Size)*16
			_ = mem.Store64(d, in.addr())
			_ = mem.Store64(d+8, uint64(in.u16())|uint64(in.byte()%8)<<32|uint64(in.byte())<<48)
		case 2: // offer a head
			idx, _ := mem.Load16(cfg.Avail + 2)
			_ = mem.Store16(cfg.Avail+4+2*uint64(idx%cfg.Size), uint16(in.byte()))
			_ = mem.Store16(cfg.Avail+2, idx+1)
		case 3: // a used_event or an index
			_ = mem.Store16(cfg.Avail+2*uint64(in.byte()), in.u16())
		case 4:
			c, err := q.Pop()
			if failed != nil && !errors.Is(err, failed) {
				t.Fatalf("Pop = %v after %v", err, failed)
			}
			failed = err
			if c != nil {
				checkChain(t, c, ram)
				held = append(held, c)
			}
		case 5:
			if len(held) > 0 {
				i := int(in.byte()) % len(held)
				c := held[i]
				n := min(uint64(in.u16()), c.WritableLen())
				if err := q.Push(c, uint32(n)); err != nil {
					t.Fatal(err)
				}
				held = append(held[:i], held[i+1:]...)
			}
		case 6:
			q.EnableKicks()
			q.Notify()
		case 7:
			q.DisableKicks()
		}
		if len(held) != q.InFlight() || len(held) > int(cfg.Size) {
			t.Fatalf("%d chains held, %d in flight, queue of %d", len(held), q.InFlight(), cfg.Size)
		}
	}
}

// checkChain checks that a chain is what it says, lies in RAM, and can be read
// and written as a device would.
func checkChain(t *testing.T, c *virtq.Chain, ram []byte) {
	// SAFETY: here and below the pointers become numbers to compare, never back.
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(ram)))
	var sums [2]uint64
	for i, bufs := range [][][]byte{c.Readable(), c.Writable()} {
		for _, b := range bufs {
			p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
			if len(b) == 0 || p < lo || p+uintptr(len(b)) > lo+uintptr(len(ram)) || cap(b) != len(b) {
				t.Fatalf("buffer of %d bytes (cap %d) at RAM%+d", len(b), cap(b), int(p)-int(lo))
			}
			sums[i] += uint64(len(b))
		}
	}
	if sums[0] != c.ReadableLen() || sums[1] != c.WritableLen() {
		t.Fatalf("%d and %d bytes, says %d and %d", sums[0], sums[1], c.ReadableLen(), c.WritableLen())
	}
	var p [100]byte
	if n := c.ReadAt(p[:], 3); uint64(n) != min(100, max(3, sums[0])-3) {
		t.Fatalf("ReadAt read %d of %d", n, sums[0])
	}
	if n := c.WriteAt(p[:], 3); uint64(n) != min(100, max(3, sums[1])-3) {
		t.Fatalf("WriteAt wrote %d of %d", n, sums[1])
	}
}

// input deals out bytes; zeroes when it is empty.
type input struct{ data []byte }

func (in *input) byte() byte {
	if len(in.data) == 0 {
		return 0
	}
	b := in.data[0]
	in.data = in.data[1:]
	return b
}

func (in *input) u16() uint16 {
	return binary.LittleEndian.Uint16([]byte{in.byte(), in.byte()})
}

// addr is mostly in RAM, sometimes at an edge of it or far out.
func (in *input) addr() uint64 {
	v := in.u16()
	switch v >> 13 {
	case 7:
		return fuzzRAM + uint64(v&0x1fff)*4
	case 6:
		return fuzzRAM/2 - 64 + uint64(v&0x7f)
	case 5:
		return -uint64(v & 0x1fff)
	}
	return uint64(v) & 0x7fff
}
