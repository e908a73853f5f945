package p9test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asUser runs do on a thread with another fsuid and fsgid and no supplementary
// groups or capabilities over files: setfsuid drops those.
func asUser(t *testing.T, uid, gid int, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not unlocked, so it ends with this goroutine.
		runtime.LockOSThread()
		// Raw: the library's wrappers would change all threads.
		if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
			t.Errorf("setgroups: %v", e)
			return
		}
		if err := unix.Setfsgid(gid); err != nil {
			t.Errorf("setfsgid: %v", err)
			return
		}
		if err := unix.Setfsuid(uid); err != nil {
			t.Errorf("setfsuid: %v", err)
			return
		}
		do()
	}()
	<-done
}

// dirStream lists a directory by getdents64, with its positions.
type dirStream struct {
	t    *testing.T
	fd   int
	buf  []byte
	recs []byte
}

type dirEntry struct {
	name string
	off  int64 // to seek to for what follows
	ino  uint64
}

func openStream(t *testing.T, dir string) *dirStream {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	ok(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return &dirStream{t: t, fd: fd, buf: make([]byte, 8192)}
}

func (d *dirStream) seek(off int64) {
	d.recs = nil
	_, err := unix.Seek(d.fd, off, unix.SEEK_SET)
	ok(d.t, err)
}

func (d *dirStream) next() (dirEntry, bool) {
	if len(d.recs) == 0 {
		n, err := unix.Getdents(d.fd, d.buf)
		ok(d.t, err)
		if n == 0 {
			return dirEntry{}, false
		}
		d.recs = d.buf[:n]
	}
	rec := d.recs
	n := binary.LittleEndian.Uint16(rec[16:])
	d.recs = rec[n:]
	name, _, _ := strings.Cut(string(rec[19:n]), "\x00")
	return dirEntry{name, int64(binary.LittleEndian.Uint64(rec[8:])), binary.LittleEndian.Uint64(rec)}, true
}

func (d *dirStream) rest() []dirEntry {
	var out []dirEntry
	for {
		e, more := d.next()
		if !more {
			return out
		}
		if e.name != "." && e.name != ".." {
			out = append(out, e)
		}
	}
}

// dirEntries is how many files the listing tests make. All lists 100,000.
const dirEntries = 500

func fill(t *testing.T, dir string) {
	for i := range dirEntries {
		put(t, filepath.Join(dir, fmt.Sprintf("%0*d", 1+i%40, i)), "")
	}
}

func dirReaddir(t *testing.T, dir string) {
	fill(t, dir)
	d := openStream(t, dir)
	all := d.rest()
	seen := map[string]bool{}
	for _, e := range all {
		seen[e.name] = true
	}
	if len(all) != dirEntries || len(seen) != dirEntries {
		t.Fatalf("%d entries, %d different, want %d", len(all), len(seen), dirEntries)
	}
	if st := lstat(t, filepath.Join(dir, all[7].name)); st.Ino != all[7].ino {
		t.Errorf("%s: d_ino %d, st_ino %d", all[7].name, all[7].ino, st.Ino)
	}
	d.seek(0)
	if again := d.rest(); len(again) != dirEntries {
		t.Errorf("%d entries after rewinddir", len(again))
	}
	for _, i := range []int{0, 1, dirEntries / 2, dirEntries - 2, dirEntries - 1} {
		d.seek(all[i].off)
		got := d.rest()
		if len(got) != dirEntries-1-i {
			t.Errorf("%d entries after seekdir past entry %d, want %d", len(got), i, dirEntries-1-i)
		} else if len(got) > 0 && got[0].name != all[i+1].name {
			t.Errorf("seekdir past entry %d goes on with %s, want %s", i, got[0].name, all[i+1].name)
		}
	}
}

// dirReaddirDelete removes every entry as it is listed, as rm -r does.
func dirReaddirDelete(t *testing.T, dir string) {
	fill(t, dir)
	d := openStream(t, dir)
	n := 0
	for {
		e, more := d.next()
		if !more {
			break
		}
		if e.name != "." && e.name != ".." {
			ok(t, os.Remove(filepath.Join(dir, e.name)))
			n++
		}
	}
	if n != dirEntries {
		t.Errorf("listed %d of %d entries while they were removed", n, dirEntries)
	}
	ok(t, os.Remove(dir))
	ok(t, os.Mkdir(dir, 0o755))
}

func dirFlock(t *testing.T, dir string) {
	p := filepath.Join(dir, "lock")
	put(t, p, "")
	open := func() int {
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_CLOEXEC, 0)
		ok(t, err)
		return fd
	}
	a, b := open(), open()
	defer unix.Close(b)
	ok(t, unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	wantErr(t, "flock of what is locked", unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), syscall.EAGAIN)
	ok(t, unix.Flock(a, unix.LOCK_UN))
	ok(t, unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
	ok(t, unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB))
	ok(t, unix.Flock(b, unix.LOCK_UN))
	ok(t, unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	ok(t, unix.Close(a))
	ok(t, unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB)) // closing a released it
}

// dirLocks: POSIX locks belong to the process, whichever fd they were made by.
func dirLocks(t *testing.T, dir string) {
	p := filepath.Join(dir, "lock")
	put(t, p, "0123456789")
	a, err := os.OpenFile(p, os.O_RDWR, 0)
	ok(t, err)
	defer a.Close()
	b, err := os.OpenFile(p, os.O_RDWR, 0)
	ok(t, err)
	lk := func(kind int16, start, n int64) *unix.Flock_t { return &unix.Flock_t{Type: kind, Start: start, Len: n} }
	ok(t, unix.FcntlFlock(a.Fd(), unix.F_SETLK, lk(unix.F_RDLCK, 0, 5)))
	ok(t, unix.FcntlFlock(b.Fd(), unix.F_SETLK, lk(unix.F_WRLCK, 2, 5)))
	ask := lk(unix.F_WRLCK, 0, 0)
	ok(t, unix.FcntlFlock(b.Fd(), unix.F_GETLK, ask))
	if ask.Type != unix.F_UNLCK {
		t.Errorf("F_GETLK reports the process's own lock: %+v", *ask)
	}
	ok(t, unix.FcntlFlock(a.Fd(), unix.F_SETLK, lk(unix.F_UNLCK, 0, 0)))
	ok(t, b.Close())
	// The child process meets no lock: all were released.
	ok(t, unix.FcntlFlock(a.Fd(), unix.F_SETLK, lk(unix.F_WRLCK, 0, 1)))
	ok(t, unix.FcntlFlock(a.Fd(), unix.F_SETLK, lk(unix.F_UNLCK, 0, 0)))
	if flock, err := exec.LookPath("flock"); err == nil {
		if out, err := exec.Command(flock, "-n", p, "true").CombinedOutput(); err != nil {
			t.Errorf("flock(1) by another process: %v: %s", err, out)
		}
	}
}

// dirTree makes and removes a small tree as package managers do: write to a
// temporary name, sync, rename; then remove everything.
func dirTree(t *testing.T, dir string) {
	for i := range 20 {
		d := filepath.Join(dir, "pkg", fmt.Sprint(i%5), "lib")
		ok(t, os.MkdirAll(d, 0o755))
		p := filepath.Join(d, fmt.Sprintf("file%d", i))
		f, err := os.OpenFile(p+".dpkg-new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		ok(t, err)
		_, err = f.Write(make([]byte, i*1000))
		ok(t, err)
		ok(t, f.Sync())
		ok(t, f.Chmod(0o755))
		ok(t, f.Chown(0, 0))
		ok(t, f.Close())
		ok(t, os.Rename(p+".dpkg-new", p))
		if i > 5 {
			ok(t, os.Link(p, p+"~"))
			ok(t, os.Rename(p, p)) // the same name: nothing happens
		}
	}
	ok(t, os.RemoveAll(filepath.Join(dir, "pkg")))
	wantErr(t, "the tree", unix.Access(filepath.Join(dir, "pkg"), 0), syscall.ENOENT)
}
