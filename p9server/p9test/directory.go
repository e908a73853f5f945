package p9test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Directory checks by ordinary system calls that dir behaves as a POSIX
// directory does on a local disk. It is meant for a mount of the server in a
// guest; run on a plain directory it proves itself. It needs root, and a
// path that other users may search.
func Directory(t *testing.T, dir string) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"Create", dirCreate},
		{"Append", dirAppend},
		{"IO", dirIO},
		{"Truncate", dirTruncate},
		{"Unlinked", dirUnlinked},
		{"UnlinkedMmap", dirUnlinkedMmap},
		{"SharedMmap", dirSharedMmap},
		{"Rename", dirRename},
		{"RenameOpen", dirRenameOpen},
		{"HardLink", dirHardLink},
		{"Symlink", dirSymlink},
		{"Mode", dirMode},
		{"Owner", dirOwner},
		{"SetGIDDirectory", dirSetGID},
		{"StripOnWrite", dirStrip},
		{"Times", dirTimes},
		{"Readdir", dirReaddir},
		{"ReaddirDelete", dirReaddirDelete},
		{"RemoveOpenDirectory", dirRemoveOpen},
		{"Xattr", dirXattr},
		{"SpecialFiles", dirSpecial},
		{"UnixSocket", dirSocket},
		{"Whiteout", dirWhiteout},
		{"Flock", dirFlock},
		{"RangeLocks", dirLocks},
		{"Errors", dirErrors},
		{"Names", dirNames},
		{"Statfs", dirStatfs},
		{"Tree", dirTree},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub, err := os.MkdirTemp(dir, c.name)
			ok(t, err)
			ok(t, os.Chmod(sub, 0o755))
			defer os.RemoveAll(sub)
			c.run(t, sub)
		})
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, what string, err error, want ...syscall.Errno) {
	t.Helper()
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	t.Errorf("%s: error %v, want %v", what, err, want)
}

func put(t testing.TB, path, data string) {
	t.Helper()
	ok(t, os.WriteFile(path, []byte(data), 0o644))
}

func wantFile(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s has %.60q, %v; want %.60q", filepath.Base(path), got, err, want)
	}
}

func lstat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	ok(t, unix.Lstat(path, &st))
	return st
}

func dirCreate(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444) // O_WRONLY on a file of mode 0444
	ok(t, err)
	_, err = f.WriteString("one")
	ok(t, err)
	ok(t, f.Close())
	_, err = os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	wantErr(t, "O_EXCL on a file", err, syscall.EEXIST)
	wantFile(t, p, "one")
	ok(t, os.Chmod(p, 0o644))
	f, err = os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
	ok(t, err)
	ok(t, f.Close())
	wantFile(t, p, "one")
	if m := lstat(t, p).Mode & 0o7777; m != 0o644 {
		t.Errorf("O_CREAT of an existing file changed its mode to %o", m)
	}
	f, err = os.OpenFile(p, os.O_TRUNC|os.O_RDWR, 0)
	ok(t, err)
	ok(t, f.Close())
	wantFile(t, p, "")
	ok(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	_, err = os.OpenFile(filepath.Join(dir, "dangling"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	wantErr(t, "O_EXCL on a dangling symlink", err, syscall.EEXIST)
	ok(t, unix.Mknod(filepath.Join(dir, "plain"), unix.S_IFREG|0o640, 0))
	if m := lstat(t, filepath.Join(dir, "plain")).Mode; m != unix.S_IFREG|0o640 {
		t.Errorf("mknod of a regular file gave mode %o", m)
	}
}

func dirAppend(t *testing.T, dir string) {
	p := filepath.Join(dir, "log")
	const writers, lines = 4, 50
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			f, err := os.OpenFile(p, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			for i := 0; err == nil && i < lines; i++ {
				_, err = fmt.Fprintf(f, "writer %d line %3d\n", w, i)
			}
			if err == nil {
				err = f.Close()
			}
			done <- err
		}()
	}
	for range writers {
		ok(t, <-done)
	}
	got, err := os.ReadFile(p)
	ok(t, err)
	seen := bytes.Split(bytes.TrimSuffix(got, []byte("\n")), []byte("\n"))
	if len(seen) != writers*lines {
		t.Errorf("%d lines, want %d", len(seen), writers*lines)
	}
	for _, l := range seen {
		if len(l) != len("writer 0 line   0") {
			t.Fatalf("torn line %q", l)
		}
	}
}

func dirIO(t *testing.T, dir string) {
	p := filepath.Join(dir, "big")
	f, err := os.Create(p)
	ok(t, err)
	defer f.Close()
	// Sizes around pages and messages; the offset is the sum of those before.
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i>>12) ^ byte(i*7)
	}
	off := 0
	for i := 0; off < len(data); i++ {
		n := min([]int{1, 511, 4095, 4096, 4097, 65536, 262144, 1000003}[i%8], len(data)-off)
		if _, err := f.WriteAt(data[off:off+n], int64(off)); err != nil {
			t.Fatal(err)
		}
		off += n
	}
	got, err := os.ReadFile(p)
	ok(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("what was written is not what is read")
	}
	_, err = f.WriteAt([]byte("far"), 1<<33)
	ok(t, err)
	st := lstat(t, p)
	if st.Size != 1<<33+3 {
		t.Errorf("sparse file has size %d", st.Size)
	}
	if st.Blocks*512 > 1<<32 {
		t.Log("this client derives st_blocks from the size (cache=loose does)")
	}
	hole := make([]byte, 100)
	if n, err := f.ReadAt(hole, 1<<32); n != 100 || err != nil || !bytes.Equal(hole, make([]byte, 100)) {
		t.Errorf("hole: %d, %v, %v", n, err, hole)
	}
	if n, err := unix.Pread(int(f.Fd()), hole, 1<<34); n != 0 || err != nil {
		t.Errorf("read past the end: %d, %v", n, err)
	}
	ok(t, f.Sync())
	ok(t, unix.Fdatasync(int(f.Fd())))
	d, err := os.Open(dir)
	ok(t, err)
	ok(t, d.Sync())
	ok(t, d.Close())
}

func dirTruncate(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	put(t, p, "0123456789")
	ok(t, os.Truncate(p, 4))
	wantFile(t, p, "0123")
	ok(t, os.Truncate(p, 6))
	wantFile(t, p, "0123\x00\x00")
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	ok(t, err)
	defer f.Close()
	ok(t, os.Chmod(p, 0)) // ftruncate asks the fd, not the mode
	ok(t, f.Truncate(1))
	if st := lstat(t, p); st.Size != 1 {
		t.Errorf("size %d after ftruncate to 1", st.Size)
	}
	wantErr(t, "truncate of a directory", os.Truncate(dir, 0), syscall.EISDIR)
}

func dirErrors(t *testing.T, dir string) {
	j := func(n string) string { return filepath.Join(dir, n) }
	put(t, j("f"), "")
	ok(t, os.Mkdir(j("d"), 0o755))
	put(t, j("d/x"), "")
	wantErr(t, "rmdir of a full directory", syscall.Rmdir(j("d")), syscall.ENOTEMPTY)
	wantErr(t, "rmdir of a file", syscall.Rmdir(j("f")), syscall.ENOTDIR)
	wantErr(t, "unlink of a directory", unix.Unlink(j("d")), syscall.EISDIR)
	wantErr(t, "unlink of nothing", unix.Unlink(j("nothing")), syscall.ENOENT)
	wantErr(t, "mkdir on a file", os.Mkdir(j("f"), 0o755), syscall.EEXIST)
	_, err := os.Open(j("f/x"))
	wantErr(t, "walk through a file", err, syscall.ENOTDIR)
	_, err = os.OpenFile(j("d"), os.O_RDWR, 0)
	wantErr(t, "open of a directory for writing", err, syscall.EISDIR)
	_, err = os.Stat(j(string(bytes.Repeat([]byte("n"), 256))))
	wantErr(t, "name of 256 bytes", err, syscall.ENAMETOOLONG)
	wantErr(t, "rename into itself", os.Rename(j("d"), j("d/e")), syscall.EINVAL)
	wantErr(t, "rename of a file over a directory", unix.Rename(j("f"), j("d")), syscall.EISDIR)
	wantErr(t, "rename of a directory over a file", unix.Rename(j("d"), j("f")), syscall.ENOTDIR)
	wantErr(t, "link of a directory", os.Link(j("d"), j("e")), syscall.EPERM)
	wantErr(t, "link over a file", os.Link(j("f"), j("d/x")), syscall.EEXIST)
	_, err = os.Readlink(j("f"))
	wantErr(t, "readlink of a file", err, syscall.EINVAL)
}
