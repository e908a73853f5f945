package p9test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dirUnlinked: everything that works on an fd goes on working after the last
// name is gone, even if another file has the name by then.
func dirUnlinked(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o644)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteString("before")
	ok(t, err)
	ok(t, os.Remove(p))
	put(t, p, "another file")

	_, err = f.WriteAt([]byte("AFTER"), 6)
	ok(t, err)
	buf := make([]byte, 20)
	if n, _ := f.ReadAt(buf, 0); string(buf[:n]) != "beforeAFTER" {
		t.Errorf("read %q", buf[:n])
	}
	var st unix.Stat_t
	ok(t, unix.Fstat(int(f.Fd()), &st))
	if st.Size != 11 {
		t.Errorf("fstat: size %d", st.Size)
	}
	ok(t, f.Truncate(3))
	ok(t, f.Chmod(0o600))
	ok(t, f.Chown(0, 0))
	ok(t, f.Sync())
	tv := []unix.Timeval{{Sec: 1000}, {Sec: 2000}}
	ok(t, unix.Futimes(int(f.Fd()), tv))
	ok(t, unix.Fstat(int(f.Fd()), &st))
	if st.Size != 3 || st.Mode&0o777 != 0o600 {
		t.Errorf("after ftruncate and fchmod: size %d, mode %o", st.Size, st.Mode)
	}
	wantFile(t, p, "another file")
	if st := lstat(t, p); st.Mode&0o777 == 0o600 {
		t.Error("fchmod of the unlinked file changed the one that has its name now")
	}
}

func mapFile(t *testing.T, f *os.File, size int) []byte {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV) {
		t.Skip("no shared writable mappings here: mount with cache=mmap")
	}
	ok(t, err)
	return m
}

func dirUnlinkedMmap(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o644)
	ok(t, err)
	defer f.Close()
	ok(t, f.Truncate(8192))
	ok(t, os.Remove(p))
	m := mapFile(t, f, 8192)
	copy(m[4090:], "across pages")
	ok(t, unix.Msync(m, unix.MS_SYNC))
	ok(t, unix.Munmap(m))
	buf := make([]byte, 12)
	if _, err := f.ReadAt(buf, 4090); err != nil || string(buf) != "across pages" {
		t.Errorf("file has %q, %v", buf, err)
	}
}

func dirSharedMmap(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o644)
	ok(t, err)
	defer f.Close()
	ok(t, f.Truncate(3*4096))
	m := mapFile(t, f, 3*4096)
	copy(m, "one")
	copy(m[8000:], "two")
	ok(t, unix.Msync(m, unix.MS_SYNC))
	ok(t, unix.Munmap(m))
	got, err := os.ReadFile(p)
	ok(t, err)
	if !bytes.HasPrefix(got, []byte("one")) || !bytes.HasPrefix(got[8000:], []byte("two")) {
		t.Error("the file does not have what was mapped")
	}
}

func dirRename(t *testing.T, dir string) {
	j := func(n string) string { return filepath.Join(dir, n) }
	put(t, j("a"), "A")
	put(t, j("b"), "B")
	ino := lstat(t, j("a")).Ino
	ok(t, os.Rename(j("a"), j("b")))
	wantFile(t, j("b"), "A")
	if lstat(t, j("b")).Ino != ino {
		t.Error("rename changed the inode number")
	}
	ok(t, os.MkdirAll(j("d/sub"), 0o755))
	ok(t, os.Rename(j("b"), j("d/sub/c")))
	ok(t, os.Mkdir(j("empty"), 0o755))
	ok(t, unix.Rename(j("d/sub"), j("empty"))) // os.Rename refuses
	wantFile(t, j("empty/c"), "A")
	wantErr(t, "old name", unix.Access(j("d/sub"), 0), syscall.ENOENT)
}

// dirRenameOpen moves a directory while it and what is in it are open.
func dirRenameOpen(t *testing.T, dir string) {
	j := func(n string) string { return filepath.Join(dir, n) }
	ok(t, os.MkdirAll(j("d/sub"), 0o755))
	f, err := os.OpenFile(j("d/sub/f"), os.O_CREATE|os.O_RDWR, 0o644)
	ok(t, err)
	defer f.Close()
	d, err := os.Open(j("d/sub"))
	ok(t, err)
	defer d.Close()
	ok(t, os.Rename(j("d"), j("e")))
	_, err = f.WriteString("moved")
	ok(t, err)
	wantFile(t, j("e/sub/f"), "moved")
	ok(t, unix.Mkdirat(int(d.Fd()), "made", 0o755))
	lstat(t, j("e/sub/made"))
	ok(t, unix.Unlinkat(int(d.Fd()), "f", 0))
	wantErr(t, "removed through the open directory", unix.Access(j("e/sub/f"), 0), syscall.ENOENT)
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) != 1 || names[0] != "made" {
		t.Errorf("listing of the moved directory: %v, %v", names, err)
	}
}

func dirRemoveOpen(t *testing.T, dir string) {
	p := filepath.Join(dir, "d")
	ok(t, os.Mkdir(p, 0o755))
	d, err := os.Open(p)
	ok(t, err)
	defer d.Close()
	ok(t, os.Remove(p))
	if names, err := d.Readdirnames(-1); len(names) != 0 || err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("listing of a removed directory: %v, %v", names, err)
	}
	fd, err := unix.Openat(int(d.Fd()), "x", unix.O_CREAT|unix.O_RDWR, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	wantErr(t, "create in a removed directory", err, syscall.ENOENT)
}

func dirHardLink(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put(t, a, "A")
	ok(t, os.Link(a, b))
	sa, sb := lstat(t, a), lstat(t, b)
	if sa.Ino != sb.Ino || sa.Nlink != 2 || sb.Nlink != 2 {
		t.Errorf("inodes %d and %d, links %d and %d", sa.Ino, sb.Ino, sa.Nlink, sb.Nlink)
	}
	put(t, b, "BB")
	wantFile(t, a, "BB")
	ok(t, os.Remove(a))
	if n := lstat(t, b).Nlink; n != 1 {
		t.Errorf("%d links after one of two was removed", n)
	}
	ok(t, os.Symlink("b", a))
	ok(t, unix.Linkat(unix.AT_FDCWD, a, unix.AT_FDCWD, filepath.Join(dir, "c"), 0))
	if m := lstat(t, filepath.Join(dir, "c")).Mode & unix.S_IFMT; m != unix.S_IFLNK {
		t.Errorf("hard link of a symlink has type %o", m)
	}
}

func dirSymlink(t *testing.T, dir string) {
	for i, target := range []string{"x", "/no/such/place", "../../..", string(bytes.Repeat([]byte("t/"), 2000))} {
		p := filepath.Join(dir, string(rune('a'+i)))
		ok(t, os.Symlink(target, p))
		got, err := os.Readlink(p)
		if err != nil || got != target {
			t.Errorf("readlink: %.40q, %v; want %.40q", got, err, target)
		}
		if st := lstat(t, p); st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != int64(len(target)) {
			t.Errorf("lstat: mode %o, size %d", st.Mode, st.Size)
		}
	}
	put(t, filepath.Join(dir, "x"), "through a link")
	wantFile(t, filepath.Join(dir, "a"), "through a link")
	ok(t, os.Lchown(filepath.Join(dir, "b"), 123, 456)) // dangling
	if st := lstat(t, filepath.Join(dir, "b")); st.Uid != 123 || st.Gid != 456 {
		t.Errorf("lchown gave %d:%d", st.Uid, st.Gid)
	}
}
