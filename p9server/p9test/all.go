package p9test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// A client that cannot say all of the protocol implements lacker, so that it
// is not the server that is blamed.
type lacker interface {
	// Lacks knows "setid", set-user-ID and set-group-ID bits in modes, and
	// "mkdirgid", the group in Tmkdir.
	Lacks(what string) bool
}

func lacks(f File, what string) bool {
	l, is := f.(lacker)
	return is && l.Lacks(what)
}

// All checks a server through a client. newFS serves dir as export "x" and
// connects; the suite looks at dir itself, too. It needs root.
func All(t *testing.T, newFS func(t *testing.T, dir string) FS) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, root File, dir string)
	}{
		{"ReadWrite", allReadWrite},
		{"Attributes", allAttributes},
		{"Unlinked", allUnlinked},
		{"Rename", allRename},
		{"Links", allLinks},
		{"SpecialFiles", allSpecial},
		{"SetGIDDirectory", allSetGID},
		{"Unlink", allUnlink},
		{"Readdir", allReaddir},
		{"QIDs", allQIDs},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := newFS(t, dir).Attach("x")
			ok(t, err)
			c.run(t, root, dir)
			ok(t, root.Close())
		})
	}
}

func walk(t *testing.T, f File, names ...string) File {
	t.Helper()
	nf, err := f.Walk(names...)
	if err != nil {
		t.Fatalf("walk %q: %v", names, err)
	}
	t.Cleanup(func() { _ = nf.Close() })
	return nf
}

func create(t *testing.T, dir File, name string, mode uint32) File {
	t.Helper()
	f := walk(t, dir)
	ok(t, f.Create(name, p9.OpenRDWR|p9.OpenEXCL, mode, 0))
	return f
}

func attr(t *testing.T, f File) p9.Attr {
	t.Helper()
	a, err := f.GetAttr()
	ok(t, err)
	return a
}

func wantRead(t *testing.T, f File, want string) {
	t.Helper()
	buf := make([]byte, len(want)+10)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) || string(buf[:n]) != want {
		t.Errorf("read %q, %v; want %q", buf[:n], err, want)
	}
}

func allReadWrite(t *testing.T, root File, dir string) {
	f := create(t, root, "f", 0o600)
	n, err := f.WriteAt([]byte("hello"), 3)
	if n != 5 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	wantRead(t, f, "\x00\x00\x00hello")
	ok(t, f.Fsync())
	wantFile(t, filepath.Join(dir, "f"), "\x00\x00\x00hello")
	g := walk(t, root, "f")
	ok(t, g.Open(p9.OpenRDWR|p9.OpenTRUNC))
	wantRead(t, f, "")
	big := make([]byte, 300_000) // several messages
	for i := range big {
		big[i] = byte(i >> 8)
	}
	for off := 0; off < len(big); {
		n, err := g.WriteAt(big[off:min(off+30_000, len(big))], int64(off))
		ok(t, err)
		off += n
	}
	wantFile(t, filepath.Join(dir, "f"), string(big))
	h := walk(t, root)
	wantErr(t, "exclusive create", h.Create("f", p9.OpenRDWR|p9.OpenEXCL, 0o600, 0), syscall.EEXIST)
	wantErr(t, "open of a directory for writing", h.Open(p9.OpenRDWR), syscall.EISDIR)
	_, err = root.Walk("f", "below")
	wantErr(t, "walk through a file", err, syscall.ENOTDIR, syscall.ENOENT)
	_, err = root.Walk("nothing")
	wantErr(t, "walk to nothing", err, syscall.ENOENT)
}

func allAttributes(t *testing.T, root File, dir string) {
	for _, mode := range []uint32{0o4755, 0o2755, 0o666, 0o777, 0} {
		name := fmt.Sprintf("%o", mode)
		if lacks(root, "setid") {
			mode &= 0o777
		}
		f := create(t, root, name, mode)
		if got := attr(t, f).Mode; got != unix.S_IFREG|mode {
			t.Errorf("created with mode %o: %o", mode, got)
		}
	}
	f := create(t, root, "f", 0o644)
	ok(t, f.SetAttr(p9.Tsetattr{Valid: p9.AttrSize, Size: 10}))
	unopened := walk(t, root, "f")
	ok(t, unopened.SetAttr(p9.Tsetattr{Valid: p9.AttrSize, Size: 20}))
	ok(t, unopened.SetAttr(p9.Tsetattr{Valid: p9.AttrUID | p9.AttrGID, UID: 12, GID: 34}))
	setid := uint32(0o6000)
	if lacks(root, "setid") {
		setid = 0
	}
	ok(t, unopened.SetAttr(p9.Tsetattr{Valid: p9.AttrMode, Mode: 0o4711}))
	ok(t, unopened.SetAttr(p9.Tsetattr{
		Valid:    p9.AttrAtime | p9.AttrMtime | p9.AttrAtimeSet | p9.AttrMtimeSet,
		AtimeSec: 111, AtimeNsec: 222, MtimeSec: 333, MtimeNsec: 444,
	}))
	a := attr(t, f)
	if a.Size != 20 || a.UID != 12 || a.GID != 34 || a.Mode != unix.S_IFREG|0o4000&setid|0o711 || a.Nlink != 1 ||
		(a.Atime != p9.Time{Sec: 111, Nsec: 222}) || (a.Mtime != p9.Time{Sec: 333, Nsec: 444}) {
		t.Errorf("attributes: %+v", a)
	}
	if st := lstat(t, filepath.Join(dir, "f")); st.Ctim.Sec != int64(a.Ctime.Sec) || st.Size != 20 {
		t.Errorf("the host says %+v", st)
	}
	// Owner and mode in one: the chown must not undo the mode.
	ok(t, f.SetAttr(p9.Tsetattr{Valid: p9.AttrUID | p9.AttrMode, UID: 1, Mode: 0o6755}))
	if got := attr(t, f).Mode; got != unix.S_IFREG|setid|0o755 {
		t.Errorf("owner and mode at once: mode %o", got)
	}
	wantErr(t, "size of a directory", root.SetAttr(p9.Tsetattr{Valid: p9.AttrSize}), syscall.EISDIR)
}

// allUnlinked: a fid goes on meaning its file when the name is gone or
// another file's.
func allUnlinked(t *testing.T, root File, dir string) {
	f := create(t, root, "f", 0o644)
	unopened := walk(t, root, "f")
	_, err := f.WriteAt([]byte("data"), 0)
	ok(t, err)
	ok(t, root.UnlinkAt("f", 0))
	put(t, filepath.Join(dir, "f"), "another")
	_, err = f.WriteAt([]byte("DATA2"), 0)
	ok(t, err)
	wantRead(t, f, "DATA2")
	for _, fid := range []File{f, unopened} {
		ok(t, fid.SetAttr(p9.Tsetattr{Valid: p9.AttrSize, Size: 3}))
		ok(t, fid.SetAttr(p9.Tsetattr{Valid: p9.AttrMode, Mode: 0o600}))
		ok(t, fid.SetAttr(p9.Tsetattr{Valid: p9.AttrMtime | p9.AttrMtimeSet, MtimeSec: 1}))
		if a := attr(t, fid); a.Size != 3 || a.Nlink != 0 || a.Mode != unix.S_IFREG|0o600 {
			t.Errorf("attributes of the unlinked file: %+v", a)
		}
	}
	ok(t, f.Fsync())
	ok(t, unopened.Open(p9.OpenRDWR))
	wantRead(t, unopened, "DAT")
	wantFile(t, filepath.Join(dir, "f"), "another")
	if m := lstat(t, filepath.Join(dir, "f")).Mode & 0o777; m != 0o644 {
		t.Errorf("the file that has the name now got mode %o", m)
	}
}

func allRename(t *testing.T, root File, dir string) {
	ok(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	b := walk(t, root, "a", "b")
	f := create(t, b, "f", 0o644)
	open := walk(t, b)
	ok(t, open.Open(0))
	ok(t, root.RenameAt("a", root, "z"))
	_, err := f.WriteAt([]byte("x"), 0)
	ok(t, err)
	wantFile(t, filepath.Join(dir, "z/b/f"), "x")
	ok(t, b.Mkdir("new", 0o755, 0))
	lstat(t, filepath.Join(dir, "z/b/new"))
	entries, err := open.Readdir(0, 8192)
	if err != nil || len(entries) != 4 {
		t.Errorf("listing of the moved directory: %v, %v", entries, err)
	}
	ok(t, b.RenameAt("f", root, "f"))
	wantFile(t, filepath.Join(dir, "f"), "x")
	wantErr(t, "rename of nothing", root.RenameAt("none", root, "n"), syscall.ENOENT)
	wantErr(t, "rename below itself", root.RenameAt("z", b, "n"), syscall.EINVAL)
	wantErr(t, "rename over a full directory", b.RenameAt("new", root, "z"), syscall.ENOTEMPTY)
}

func allLinks(t *testing.T, root File, dir string) {
	ok(t, root.Symlink("s", "/etc/passwd", 0))
	s := walk(t, root, "s")
	if got, err := s.Readlink(); got != "/etc/passwd" || err != nil {
		t.Errorf("readlink: %q, %v", got, err)
	}
	a := attr(t, s)
	if a.QID.Type != p9.QTSymlink || a.Mode&unix.S_IFMT != unix.S_IFLNK || a.Size != 11 {
		t.Errorf("attributes of a symlink: %+v", a)
	}
	wantErr(t, "open of a symlink", s.Open(0), syscall.ELOOP, syscall.EINVAL)
	f := create(t, root, "f", 0o644)
	ok(t, root.Link("g", f))
	if a := attr(t, f); a.Nlink != 2 {
		t.Errorf("%d links", a.Nlink)
	}
	if g := walk(t, root, "g"); attr(t, g).QID != attr(t, f).QID {
		t.Error("two names of one file have different QIDs")
	}
	wantErr(t, "link over a file", root.Link("g", f), syscall.EEXIST)
	_, err := f.Readlink()
	wantErr(t, "readlink of a file", err, syscall.EINVAL)
	_ = dir
}

func allSpecial(t *testing.T, root File, dir string) {
	for name, mode := range map[string]uint32{
		"fifo": unix.S_IFIFO | 0o640, "sock": unix.S_IFSOCK | 0o600, "reg": unix.S_IFREG | 0o4750,
	} {
		ok(t, root.Mknod(name, mode, 0, 0, 0))
		if m := lstat(t, filepath.Join(dir, name)).Mode; m != mode {
			t.Errorf("mknod %s: mode %o, want %o", name, m, mode)
		}
	}
	for _, name := range []string{"fifo", "sock"} {
		wantErr(t, "open of "+name, walk(t, root, name).Open(0), syscall.ENXIO, syscall.EINVAL)
	}
}

func allSetGID(t *testing.T, root File, dir string) {
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
	ok(t, os.Chown(filepath.Join(dir, "d"), 0, 77))
	ok(t, unix.Chmod(filepath.Join(dir, "d"), 0o2777))
	d := walk(t, root, "d")
	f := walk(t, d)
	ok(t, f.Create("f", p9.OpenRDWR, 0o2755, 5))
	ok(t, d.Mkdir("sub", 0o755, 5))
	ok(t, d.Symlink("l", "x", 5))
	for _, n := range []string{"f", "sub", "l"} {
		if g := lstat(t, filepath.Join(dir, "d", n)).Gid; g != 77 {
			t.Errorf("%s has group %d, want the directory's", n, g)
		}
	}
	if m := lstat(t, filepath.Join(dir, "d/sub")).Mode & 0o7777; m != 0o2755 {
		t.Errorf("directory has mode %o", m)
	}
	ok(t, root.Mkdir("e", 0o750, 5))
	if st := lstat(t, filepath.Join(dir, "e")); st.Gid != 5 && !lacks(root, "mkdirgid") || st.Mode&0o7777 != 0o750 {
		t.Errorf("mkdir: group %d, mode %o", st.Gid, st.Mode&0o7777)
	}
}

func allUnlink(t *testing.T, root File, dir string) {
	ok(t, root.Mkdir("d", 0o755, 0))
	put(t, filepath.Join(dir, "f"), "")
	wantErr(t, "unlink of a directory", root.UnlinkAt("d", 0), syscall.EISDIR)
	wantErr(t, "rmdir of a file", root.UnlinkAt("f", p9.AtRemoveDir), syscall.ENOTDIR)
	d := walk(t, root, "d")
	f := create(t, d, "x", 0o644)
	wantErr(t, "rmdir of a full directory", root.UnlinkAt("d", p9.AtRemoveDir), syscall.ENOTEMPTY)
	ok(t, d.UnlinkAt("x", 0))
	ok(t, root.UnlinkAt("d", p9.AtRemoveDir)) // with fids inside
	wantErr(t, "create in a removed directory", d.Mkdir("y", 0o755, 0), syscall.ENOENT)
	_, err := f.WriteAt([]byte("x"), 0)
	ok(t, err)
	wantErr(t, "unlink of nothing", root.UnlinkAt("d", 0), syscall.ENOENT)
}

// list reads a whole directory from off on, count bytes at a time.
func list(t *testing.T, d File, off uint64, count uint32) []Entry {
	t.Helper()
	var all []Entry
	for {
		entries, err := d.Readdir(off, count)
		ok(t, err)
		if len(entries) == 0 {
			return all
		}
		all = append(all, entries...)
		off = entries[len(entries)-1].Offset
	}
}

func allReaddir(t *testing.T, root File, dir string) {
	const n = 2000
	for i := range n {
		put(t, filepath.Join(dir, fmt.Sprintf("%0*d", 1+i%60, i)), "")
	}
	d := walk(t, root)
	ok(t, d.Open(0))
	for _, count := range []uint32{300, 1000, 8192, 60000} {
		all := list(t, d, 0, count)
		seen := map[string]bool{}
		for _, e := range all {
			seen[e.Name] = true
		}
		if len(all) != n+2 || len(seen) != n+2 {
			t.Errorf("%d bytes at a time: %d entries, %d different, want %d", count, len(all), len(seen), n+2)
		}
		for _, i := range []int{0, n / 2, n + 1} {
			if got := list(t, d, all[i].Offset, count); len(got) != n+1-i {
				t.Errorf("%d entries from position %d on, want %d", len(got), i, n+1-i)
			}
		}
	}
	wantErr(t, "room for no entry", func() error { _, err := d.Readdir(0, 10); return err }(), syscall.EINVAL)
	// Removal of what was listed, as rm -r does.
	removed := 0
	for off := uint64(0); ; {
		entries, err := d.Readdir(off, 4000)
		ok(t, err)
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Name != "." && e.Name != ".." {
				ok(t, root.UnlinkAt(e.Name, 0))
				removed++
			}
		}
		off = entries[len(entries)-1].Offset
	}
	if removed != n {
		t.Errorf("%d of %d entries listed while they were removed", removed, n)
	}
}

func allQIDs(t *testing.T, root File, dir string) {
	paths := map[uint64]string{}
	for i := range 200 {
		f := create(t, root, fmt.Sprint(i), 0o644)
		a := attr(t, f)
		if was, dup := paths[a.QID.Path]; dup {
			t.Errorf("%d and %s have the same QID", i, was)
		}
		paths[a.QID.Path] = fmt.Sprint(i)
		if a.QID.Version == 0 || a.QID != attr(t, walk(t, root, fmt.Sprint(i))).QID {
			t.Errorf("QID of %d is not steady: %+v", i, a.QID)
		}
		_, err := f.WriteAt([]byte("x"), 0)
		ok(t, err)
		if b := attr(t, f); b.QID != a.QID {
			t.Errorf("a write changed the QID: %+v, %+v", a.QID, b.QID)
		}
	}
	_ = dir
}
