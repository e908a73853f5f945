package guestmem

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// saved writes a RAM with some pages of content to a file.
func saved(t *testing.T, size uint64, pages ...uint64) (path string, m *Memory, extents []Extent) {
	t.Helper()
	m, err := Alloc(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	for _, p := range pages {
		host, err := m.Slice(p*PageSize, PageSize)
		if err != nil {
			t.Fatal(err)
		}
		for i := range host {
			host[i] = byte(p) | 1
		}
	}
	path = filepath.Join(t.TempDir(), "memory")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if extents, err = m.Save(f); err != nil {
		t.Fatal(err)
	}
	return path, m, extents
}

func mapped(t *testing.T, path string, size uint64, extents []Extent) *Memory {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := Map(f, size, size, extents)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestSaveMap(t *testing.T) {
	const size = 8 << 20
	last := uint64(size/PageSize - 1)
	path, m, extents := saved(t, size, 0, 1, 20, 255, 256, 257, 1000, last)
	want := []Extent{{0, 2 * PageSize}, {20 * PageSize, PageSize}, {255 * PageSize, 3 * PageSize}, {1000 * PageSize, PageSize}, {last * PageSize, PageSize}}
	if len(extents) != len(want) {
		t.Fatalf("extents %v, want %v", extents, want)
	}
	for i := range want {
		if extents[i] != want[i] {
			t.Errorf("extent %d is %v, want %v", i, extents[i], want[i])
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > size/4 {
		t.Errorf("a file of %d bytes takes %d: not sparse", st.Size, st.Blocks*512)
	}
	clone := mapped(t, path, size, extents)
	if !bytes.Equal(clone.ram, m.ram) {
		t.Error("the map differs from what was saved")
	}
}

// TestNeverWrittenThrough: clones that write all their memory leave the file as
// it was, and do not see each other.
func TestNeverWrittenThrough(t *testing.T) {
	const size = 4 << 20
	path, _, extents := saved(t, size, 3, 4, 5, 700)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(before)
	var clones []*Memory
	for n := range 4 {
		m := mapped(t, path, size, extents)
		for i := range m.ram {
			m.ram[i] = byte(n) + 100
		}
		clones = append(clones, m)
	}
	for n, m := range clones {
		for i, b := range m.ram {
			if b != byte(n)+100 {
				t.Fatalf("clone %d sees %d at %#x", n, b, i)
			}
		}
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(after) != sum {
		t.Error("the file was written through")
	}
}

func TestCoalesce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var all []Extent
	off := uint64(0)
	for range 20000 {
		off += (1 + r.Uint64N(40)) * PageSize
		all = append(all, Extent{off, PageSize})
		off += PageSize
	}
	out := coalesce(all)
	if len(out) > MaxExtents {
		t.Fatalf("%d extents", len(out))
	}
	if err := CheckExtents(off, out); err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, e := range all { // each one is inside one of out
		for out[i].Off+out[i].Len <= e.Off {
			i++
		}
		if e.Off < out[i].Off || e.Off+e.Len > out[i].Off+out[i].Len {
			t.Fatalf("%v is lost", e)
		}
	}
}

// TestMapRefuses: what a file of state may claim about the file of memory.
func TestMapRefuses(t *testing.T) {
	const size = 1 << 20
	path, _, good := saved(t, size, 3, 100)
	for name, bad := range map[string]struct {
		size    uint64
		extents []Extent
	}{
		"another size":  {2 * size, good},
		"no page":       {size, []Extent{{1, PageSize}}},
		"odd length":    {size, []Extent{{0, 100}}},
		"empty":         {size, []Extent{{0, 0}}},
		"outside":       {size, []Extent{{size, PageSize}}},
		"too long":      {size, []Extent{{size - PageSize, 2 * PageSize}}},
		"wraps":         {size, []Extent{{PageSize, ^uint64(0) &^ (PageSize - 1)}}},
		"far":           {size, []Extent{{^uint64(0) &^ (PageSize - 1), PageSize}}},
		"overlap":       {size, []Extent{{0, 2 * PageSize}, {PageSize, PageSize}}},
		"out of order":  {size, []Extent{{2 * PageSize, PageSize}, {0, PageSize}}},
		"too many":      {size, make([]Extent, MaxExtents+1)},
		"absurdly much": {1 << 60, good},
	} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Map(f, bad.size, bad.size, bad.extents); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
		_ = f.Close()
	}
	if err := os.Truncate(path, size/2); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Map(f, size, size, good); !errors.Is(err, ErrFile) {
		t.Errorf("a file cut short: %v", err)
	}
	dev, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if _, err := Map(dev, size, size, good); !errors.Is(err, ErrFile) {
		t.Errorf("no regular file: %v", err)
	}
}

var read byte // what the compiler may not leave out

// TestTouched: which pages a clone has read and written is known, and no others, and
// prefetching those that it wrote makes them the next one's own and no others.
func TestTouched(t *testing.T) {
	const size = 4 << 20
	path, m, extents := saved(t, size, 3, 4, 5, 6, 700)
	all := mapped(t, path, size, extents)
	if !bytes.Equal(all.ram, m.ram) { // every page is read
		t.Error("the map differs from what was saved")
	}
	if touched, written, err := all.Touched(); err != nil || len(written) != 0 || !slices.Equal(touched, []Extent{{0, size}}) {
		t.Errorf("by reading: touched %v, written %v, %v", touched, written, err)
	}
	pages := func(at ...uint64) (out []Extent) {
		for _, n := range at {
			out = append(out, Extent{n * PageSize, PageSize})
		}
		return out
	}
	clone := mapped(t, path, size, extents)
	clone.Apart(extents)
	read = clone.ram[6*PageSize] + clone.ram[800*PageSize] // of the file, and a hole
	clone.ram[4*PageSize] = 1
	clone.ram[900*PageSize] = 1
	clone.ram[901*PageSize] = 0 // zeros, but its own
	wantWritten := []Extent{{4 * PageSize, PageSize}, {900 * PageSize, 2 * PageSize}}
	wantTouched := append(pages(4, 6, 800), Extent{900 * PageSize, 2 * PageSize})
	touched, written, err := clone.Touched()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(touched, wantTouched) || !slices.Equal(written, wantWritten) {
		t.Errorf("touched %v, want %v; written %v, want %v", touched, wantTouched, written, wantWritten)
	}
	next := mapped(t, path, size, extents)
	next.Prefetch(append(written, Extent{size, PageSize}, Extent{0, ^uint64(0)}))
	if touched, written, err := next.Touched(); err != nil || !slices.Equal(written, wantWritten) || !slices.Equal(touched, written) {
		t.Errorf("prefetched: touched %v, written %v, %v", touched, written, err)
	}
	if !bytes.Equal(next.ram, m.ram) {
		t.Error("the map differs from what was saved")
	}
}
