package bus

import (
	"errors"
	"math"
	"testing"
)

type recorder struct {
	off uint64
	n   int
}

func (r *recorder) Read(off uint64, p []byte)  { r.off, r.n = off, len(p); clear(p) }
func (r *recorder) Write(off uint64, p []byte) { r.off, r.n = off, len(p) }

func TestInsertRefuses(t *testing.T) {
	var b Bus
	h := &recorder{}
	for _, w := range [][2]uint64{{0x1000, 0x100}, {0x2000, 0x100}, {math.MaxUint64 - 0xff, 0x100}} {
		if err := b.Insert(w[0], w[1], h); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name       string
		base, size uint64
		ok         bool
	}{
		{"zero size", 0x3000, 0, false},
		{"wrap", math.MaxUint64, 2, false},
		{"same", 0x1000, 0x100, false},
		{"inside", 0x1010, 1, false},
		{"around", 0xf00, 0x1000, false},
		{"last byte", 0x10ff, 1, false},
		{"first byte", 0xfff, 2, false},
		{"two windows", 0x1100, 0xf01, false},
		{"fits between", 0x1100, 0xf00, true},
		{"before all", 0, 0x1000, true},
	} {
		err := b.Insert(tt.base, tt.size, h)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrRange) {
			t.Errorf("%s: Insert = %v, want ok %v", tt.name, err, tt.ok)
		}
	}
	if err := b.Insert(0x5000, 1, nil); err == nil {
		t.Error("nil handler accepted")
	}
}

func TestRouting(t *testing.T) {
	var b Bus
	p := []byte{1, 2}
	if b.Read(0, p) || p[0] != 0xff || p[1] != 0xff {
		t.Fatalf("read of an empty bus: %x", p)
	}
	lo, hi := &recorder{}, &recorder{}
	if err := b.Insert(0x2000, 0x10, hi); err != nil {
		t.Fatal(err)
	}
	if err := b.Insert(0x1000, 0x10, lo); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		addr uint64
		n    int
		want *recorder
		off  uint64
	}{
		{"first", 0x1000, 4, lo, 0},
		{"end", 0x100c, 4, lo, 0xc},
		{"straddles", 0x100d, 4, nil, 0},
		{"between", 0x1010, 1, nil, 0},
		{"below", 0xfff, 1, nil, 0},
		{"second", 0x2008, 8, hi, 8},
		{"above", 0x2010, 1, nil, 0},
		{"top", math.MaxUint64, 8, nil, 0},
		{"empty access", 0x1000, 0, nil, 0},
	} {
		*lo, *hi = recorder{}, recorder{}
		p := make([]byte, tt.n)
		if got := b.Read(tt.addr, p); got != (tt.want != nil) {
			t.Errorf("%s: Read = %v", tt.name, got)
		}
		if got := b.Write(tt.addr, p); got != (tt.want != nil) {
			t.Errorf("%s: Write = %v", tt.name, got)
		}
		if tt.want != nil && (tt.want.off != tt.off || tt.want.n != tt.n) {
			t.Errorf("%s: handler saw %+v", tt.name, *tt.want)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	var bus Bus
	for i := range uint64(8) {
		if err := bus.Insert(0xd0000000+i*0x1000, 0x200, &recorder{}); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, 4)
	for b.Loop() {
		bus.Read(0xd0005060, p)
	}
}
