package boot

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

func section(p []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(p), 0, int64(len(p)))
}

// Mapped or copied, the guest sees the same, zeros around it, and the file stays as it is.
func TestPlace(t *testing.T) {
	const page = guestmem.PageSize
	data := make([]byte, 10*page+123)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32()) | 1 // never zero
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ addr, off, n uint64 }{
		{4 * page, 0, uint64(len(data))},
		{4 * page, page, 3 * page},
		{4*page + 100, page + 100, 3 * page},     // begins and ends inside a page
		{4*page + 100, page + 100, 3*page - 100}, // ends on one
		{4*page + 100, page + 100, 10},           // inside one page
		{4*page + 4000, page + 4000, 200},        // parts of two
		{4*page + 100, page + 101, 3 * page},     // cannot be mapped
		{4 * page, 2*page + 8, 5 * page},
		{4 * page, 0, 0},
	} {
		mem := alloc(t, 64*page)
		if err := place(mem, c.addr, f, int64(c.off), c.n); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		got, want := make([]byte, 64*page), make([]byte, 64*page)
		copy(want[c.addr:], data[c.off:c.off+c.n])
		if err := mem.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: memory is not the image with zeros around: %v", c, err)
		}
		if err := mem.WriteAt(make([]byte, 64*page), 0); err != nil {
			t.Fatal(err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
			t.Fatalf("%+v: the guest's writes are in the file: %v", c, err)
		}
	}
	for _, n := range []uint64{5 * page, 5*page - 1, page} {
		if err := place(alloc(t, 64*page), 4*page, f, 10*page, n); err == nil {
			t.Error("beyond the end of the file, into pages that would be SIGBUS")
		}
	}
}

// What cannot be mapped is copied: memory of the caller's own.
func TestPlaceInForeignMemory(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 2*guestmem.PageSize)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	host := make([]byte, 4*guestmem.PageSize)
	mem, err := guestmem.FromRegions(guestmem.Region{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	if err := place(mem, 0, f, 0, uint64(len(data))); err != nil || !bytes.Equal(host[:len(data)], data) {
		t.Error(err)
	}
}
