package mmio_test

import (
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/internal/guestmem"
)

// FuzzRegisters takes bytes as register accesses of any offset, width and
// value, with a device behind them that serves whatever rings come of it.
func FuzzRegisters(f *testing.F) {
	// A driver's way to DRIVER_OK with queue 0, and a kick.
	start := []byte{}
	set := func(off uint16, v uint32) {
		start = append(start, 0x80|4, byte(off), byte(off>>8), byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	set(0x70, 1)
	set(0x70, 3)
	set(0x24, 1)
	set(0x20, 1)
	set(0x70, 11)
	set(0x30, 0)
	set(0x38, 8)
	set(0x80, 0x1000)
	set(0x90, 0x2000)
	set(0xa0, 0x3000)
	set(0x44, 1)
	set(0x70, 15)
	set(0x50, 0)
	f.Add(start)
	f.Add(append(start[:len(start):len(start)], 0x84, 0x70, 0, 0, 0, 0, 0))
	f.Add([]byte{4, 0, 1, 8, 0xfc, 1, 0x88, 4, 1, 1, 2, 3, 4, 5, 6, 7, 8})
	ram := make([]byte, 64<<10)
	mem, err := guestmem.FromRegions(guestmem.Region{Host: ram})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		clear(ram) // the last device has stopped
		e := &echo{}
		tr, err := mmio.New(mmio.Config{Device: e, Mem: mem})
		if err != nil {
			t.Fatal(err)
		}
		for len(data) >= 3 {
			op, off := data[0], uint64(data[1])|uint64(data[2])<<8
			data = data[3:]
			p := make([]byte, op&0x0f)
			if op&0x80 == 0 {
				tr.Read(off, p)
				continue
			}
			data = data[copy(p, data):]
			tr.Write(off, p)
			check(t, tr, e)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		if s := tr.Status(); s != 0 {
			t.Fatalf("status %#x after Close", s)
		}
		if _, on, off := e.activation(); on != off {
			t.Fatalf("%d activations, %d resets", on, off)
		}
	})
}

// check holds at any time: a driver gets no step for free, and the device runs
// exactly while DRIVER_OK says so.
func check(t *testing.T, tr *mmio.Transport, e *echo) {
	s := tr.Status()
	a, on, off := e.activation()
	for _, need := range [][2]uint32{{2, 1}, {8, 2}, {4, 8}} {
		if s&need[0] != 0 && s&need[1] == 0 {
			t.Fatalf("status %#x", s)
		}
	}
	if s&4 == 0 && on != off {
		t.Fatalf("status %#x, %d activations, %d resets", s, on, off)
	}
	if on > off && (a.Features&(1<<32) == 0 || a.Features&^uint64(allFeatures) != 0) {
		t.Fatalf("activated with features %#x", a.Features)
	}
}
