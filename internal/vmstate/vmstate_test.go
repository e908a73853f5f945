package vmstate

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

type fixed struct {
	A uint8
	_ [3]uint8
	B uint64
	C [4]uint16
}

func sample() []byte {
	var w Writer
	w.U8(1)
	w.U16(2)
	w.U32(3)
	w.U64(4)
	w.Bool(true)
	w.Bytes([]byte{5, 6})
	w.String("seven")
	w.Struct(&fixed{A: 8, B: 9, C: [4]uint16{10, 11, 12, 13}})
	w.U32(2)
	w.U16(14)
	w.U16(15)
	return w.Data()
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := WriteFile(path, sample()); err != nil {
		t.Fatal(err)
	}
	r, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r.U8() != 1 || r.U16() != 2 || r.U32() != 3 || r.U64() != 4 || !r.Bool() {
		t.Error("numbers")
	}
	if b := r.Bytes(2); len(b) != 2 || b[1] != 6 {
		t.Errorf("bytes %v", b)
	}
	if s := r.String(5); s != "seven" {
		t.Errorf("string %q", s)
	}
	var f fixed
	r.Struct(&f)
	if f != (fixed{A: 8, B: 9, C: [4]uint16{10, 11, 12, 13}}) {
		t.Errorf("struct %+v", f)
	}
	if n := r.Count(2, 2); n != 2 || r.U16() != 14 || r.U16() != 15 {
		t.Errorf("count %d", n)
	}
	if err := r.Done(); err != nil {
		t.Error(err)
	}
	if err := WriteFile(path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that exists: %v", err)
	}
}

// TestDamage cuts and changes a file at every byte.
func TestDamage(t *testing.T) {
	good := Seal(sample())
	for n := range good {
		if _, err := Open(good[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		_, err := Open(bad)
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	if _, err := Open(append(good[:len(good):len(good)], 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestReaderBounds(t *testing.T) {
	for name, read := range map[string]func(r *Reader){
		"short number":                func(r *Reader) { r.U64(); r.U64() },
		"bool":                        func(r *Reader) { r.U32(); r.Bool() },
		"long bytes":                  func(r *Reader) { r.U32(); r.U32(); r.U8(); r.Bytes(1 << 30) },
		"count over max":              func(r *Reader) { r.Count(1, 0) },
		"count of more than is there": func(r *Reader) { r.Count(1<<30, 8) },
		"rest":                        func(r *Reader) { r.U8() },
	} {
		r := NewReader([]byte{2, 0, 0, 0, 3, 0, 0, 0, 7})
		read(r)
		if err := r.Done(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if r.U8() != 0 || r.U64() != 0 || r.Bytes(4) != nil {
			t.Errorf("%s: a failed reader gives values", name)
		}
	}
}

func TestReadFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(Seal(sample()))
	f.Add(Seal(nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Open(data)
		if err != nil {
			return
		}
		for r.Err() == nil && len(r.buf) > 0 {
			r.Bytes(1 << 20)
		}
	})
}
