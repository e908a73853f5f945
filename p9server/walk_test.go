package p9server_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
	"golang.org/x/sys/unix"
)

// TestWalkAttributes: a client that offers exactly the room for them gets the
// attributes with the walk of one name, as Rgetattr would say them; nobody else does.
func TestWalkAttributes(t *testing.T) {
	r, dir, _ := serve(t)
	check(t, os.MkdirAll(filepath.Join(dir, "d", "e"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("12345"), 0o640))
	check(t, os.Symlink("nowhere", filepath.Join(dir, "l")))

	const plain = 2 + p9.QIDSize // the body of an Rwalk of one name
	if p9.WalkAttrSize != 175 {
		t.Fatalf("WalkAttrSize is %d; the kernel's edit has 175", p9.WalkAttrSize)
	}
	walk := func(room int, names ...string) ([]byte, error) {
		m := p9.Twalk{FID: 0, NewFID: 9, N: len(names)}
		for i, n := range names {
			m.Names[i] = []byte(n)
		}
		msize := r.Msize
		r.Msize = room
		body, err := r.Call(&m)
		r.Msize = msize
		return body, err
	}
	for _, name := range []string{"f", "d", "l"} {
		body, err := walk(p9.WalkAttrSize, name)
		check(t, err)
		attr, err := r.Call(&p9.Tgetattr{FID: 9, Mask: p9.StatsBasic})
		check(t, err)
		if len(body) != plain+p9.GetattrSize || !bytes.Equal(body[plain:], attr) {
			t.Errorf("%s: %d bytes, attributes\n%x, want\n%x", name, len(body), body[plain:], attr)
		}
		check(t, r.Clunk(9))
		for _, room := range []int{p9.WalkAttrSize - 1, p9.WalkAttrSize + 1, msizeOfLinux} {
			body, err = walk(room, name)
			check(t, err)
			if len(body) != plain {
				t.Errorf("%s in %d bytes: a body of %d bytes, want %d", name, room, len(body), plain)
			}
			check(t, r.Clunk(9))
		}
	}
	body, err := walk(p9.WalkAttrSize, "d", "e")
	check(t, err)
	if len(body) != 2+2*p9.QIDSize {
		t.Errorf("two names: a body of %d bytes", len(body))
	}
	check(t, r.Clunk(9))
	_, err = walk(p9.WalkAttrSize, "nothing")
	want(t, "walk to nothing", err, syscall.ENOENT)
	body, err = walk(p9.WalkAttrSize, "f", "nothing")
	check(t, err)
	if n := binary.LittleEndian.Uint16(body); n != 1 || len(body) != plain {
		t.Errorf("half a walk: %d names, a body of %d bytes", n, len(body))
	}
}

// msizeOfLinux is what v9fs asks for by default.
const msizeOfLinux = 128 << 10

// TestWalkRemoved: a directory that the host has removed says so, for another one of its name may be there. On overlayfs, where
// the root file systems of containers are, the number of links does not tell.
func TestWalkRemoved(t *testing.T) {
	r, dir, _ := serve(t)
	check(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	testWalkRemoved(t, r, filepath.Join(dir, "d"))

	dir = overlay(t)
	r = newRaw(t, newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: dir}))
	for _, d := range []string{"low", "both", "up", "called so (deleted)"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		testWalkRemoved(t, r, filepath.Join(dir, d))
	}
}

// overlay mounts an overlay whose directories low, both and up are on the layers
// of these names.
func overlay(t *testing.T) string {
	t.Helper()
	layers := t.TempDir()
	for _, d := range []string{"lower/low", "lower/both", "upper/both", "upper/up", "work", "all"} {
		check(t, os.MkdirAll(filepath.Join(layers, d), 0o755))
	}
	dir := filepath.Join(layers, "all")
	check(t, unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+layers+"/lower,upperdir="+layers+"/upper,workdir="+layers+"/work"))
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	return dir
}

func testWalkRemoved(t *testing.T, r *p9test.Raw, d string) {
	t.Helper()
	name := filepath.Base(d)
	check(t, r.Walk(0, 1, name))
	want(t, "walk in "+d, r.Walk(1, 2, "f"), syscall.ENOENT)
	check(t, os.Remove(d))
	want(t, "walk in "+d+", removed", r.Walk(1, 2, "f"), syscall.ESTALE)
	check(t, os.Mkdir(d, 0o755))
	check(t, os.WriteFile(filepath.Join(d, "f"), nil, 0o644))
	want(t, "walk in the old "+d, r.Walk(1, 2, "f"), syscall.ESTALE)
	check(t, r.Walk(0, 3, name))
	check(t, r.Walk(3, 4, "f"))
	check(t, r.Clunk(1))
	check(t, r.Clunk(3))
	check(t, r.Clunk(4))
}
