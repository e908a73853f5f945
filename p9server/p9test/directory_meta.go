package p9test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func dirMode(t *testing.T, dir string) {
	defer syscall.Umask(syscall.Umask(0))
	for _, mode := range []uint32{0o4755, 0o2755, 0o6711, 0o1777, 0o000, 0o640} {
		p := filepath.Join(dir, fmt.Sprintf("%o", mode))
		fd, err := unix.Open(p, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
		ok(t, err)
		ok(t, unix.Close(fd))
		if m := lstat(t, p).Mode & 0o7777; m != mode {
			t.Errorf("open with mode %o made %o", mode, m)
		}
		ok(t, unix.Chmod(p, mode^0o777))
		if m := lstat(t, p).Mode & 0o7777; m != mode^0o777 {
			t.Errorf("chmod to %o gave %o", mode^0o777, m)
		}
		ok(t, unix.Mkdir(p+"d", mode))
		// mkdir(2) takes the permission bits and the sticky bit only.
		if m := lstat(t, p+"d").Mode & 0o7777; m != mode&0o1777 {
			t.Errorf("mkdir with mode %o made %o", mode, m)
		}
	}
	syscall.Umask(0o027)
	put(t, filepath.Join(dir, "masked"), "")
	if m := lstat(t, filepath.Join(dir, "masked")).Mode & 0o7777; m != 0o640 {
		t.Errorf("0644 under umask 027 made %o", m)
	}
}

func dirOwner(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	put(t, p, "")
	ok(t, os.Chmod(p, 0o755))
	ok(t, unix.Chmod(p, 0o6755))
	ok(t, os.Chown(p, 1234, 5678))
	st := lstat(t, p)
	if st.Uid != 1234 || st.Gid != 5678 {
		t.Errorf("owner %d:%d, want 1234:5678", st.Uid, st.Gid)
	}
	if st.Mode&0o7777 != 0o755 {
		t.Errorf("chown left mode %o, want the set-ID bits cleared", st.Mode&0o7777)
	}
	ok(t, os.Chown(p, -1, 9))
	if st := lstat(t, p); st.Uid != 1234 || st.Gid != 9 {
		t.Errorf("owner %d:%d, want 1234:9", st.Uid, st.Gid)
	}
	// What another user makes is the other user's.
	ok(t, os.Chmod(dir, 0o777))
	asUser(t, 1000, 1001, func() {
		put(t, filepath.Join(dir, "his"), "")
		ok(t, os.Mkdir(filepath.Join(dir, "hisdir"), 0o755))
		ok(t, os.Symlink("x", filepath.Join(dir, "hislink")))
		_, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
		wantErr(t, "write to another user's file", err, syscall.EACCES)
		wantErr(t, "chmod of another user's file", os.Chmod(p, 0o777), syscall.EPERM)
	})
	for _, n := range []string{"his", "hisdir", "hislink"} {
		if st := lstat(t, filepath.Join(dir, n)); st.Uid != 1000 || st.Gid != 1001 {
			t.Errorf("%s belongs to %d:%d, want 1000:1001", n, st.Uid, st.Gid)
		}
	}
}

func dirSetGID(t *testing.T, dir string) {
	ok(t, os.Chown(dir, 0, 4321))
	ok(t, unix.Chmod(dir, 0o2777))
	asUser(t, 1000, 1001, func() {
		put(t, filepath.Join(dir, "f"), "")
		ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		fd, err := unix.Open(filepath.Join(dir, "x"), unix.O_CREAT|unix.O_RDWR, 0o2755)
		ok(t, err)
		ok(t, unix.Close(fd))
	})
	for _, n := range []string{"f", "d", "x"} {
		if st := lstat(t, filepath.Join(dir, n)); st.Gid != 4321 {
			t.Errorf("%s has group %d, want the directory's", n, st.Gid)
		}
	}
	if m := lstat(t, filepath.Join(dir, "d")).Mode; m&unix.S_ISGID == 0 {
		t.Errorf("directory has mode %o, without the inherited bit", m)
	}
	if m := lstat(t, filepath.Join(dir, "x")).Mode; m&unix.S_ISGID != 0 {
		t.Errorf("a user who is not of the group made a set-group-ID file of mode %o", m)
	}
}

// dirStrip: a write or truncation by somebody unprivileged clears set-ID bits.
func dirStrip(t *testing.T, dir string) {
	for name, change := range map[string]func(*testing.T, string){
		"write": func(t *testing.T, p string) {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			ok(t, err)
			_, err = f.WriteString("x")
			ok(t, err)
			ok(t, f.Close())
		},
		"truncate": func(t *testing.T, p string) { ok(t, os.Truncate(p, 1)) },
	} {
		p := filepath.Join(dir, name)
		put(t, p, "program")
		ok(t, os.Chmod(p, 0o777))
		ok(t, unix.Chmod(p, 0o6777))
		asUser(t, 1000, 1001, func() { change(t, p) })
		if m := lstat(t, p).Mode & 0o7777; m != 0o777 {
			t.Errorf("%s left mode %o", name, m)
		}
	}
}

func dirTimes(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	put(t, p, "")
	ts := []unix.Timespec{{Sec: 1_000_000_000, Nsec: 123456789}, {Sec: 1_100_000_000, Nsec: 987654321}}
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, 0))
	if lstat(t, p).Mtim.Nsec == 0 {
		// v9fs leaves s_time_gran at a second, to which the VFS truncates what
		// utimensat gets, before any 9P message is made of it.
		t.Log("this kernel's client truncates times to seconds")
		ts[0].Nsec, ts[1].Nsec = 0, 0
	}
	if st := lstat(t, p); st.Atim != ts[0] || st.Mtim != ts[1] {
		t.Errorf("times %v %v, want %v", st.Atim, st.Mtim, ts)
	}
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
	if st := lstat(t, p); st.Atim != ts[0] || time.Since(time.Unix(st.Mtim.Unix())).Abs() > time.Minute {
		t.Errorf("after OMIT and NOW: %v %v", st.Atim, st.Mtim)
	}
	l := filepath.Join(dir, "l")
	ok(t, os.Symlink("f", l))
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, l, ts, unix.AT_SYMLINK_NOFOLLOW))
	if st := lstat(t, l); st.Mtim != ts[1] {
		t.Errorf("symlink's time %v, want %v", st.Mtim, ts[1])
	}
	before := lstat(t, dir).Mtim
	time.Sleep(20 * time.Millisecond)
	put(t, filepath.Join(dir, "g"), "")
	if after := lstat(t, dir).Mtim; after == before {
		t.Error("a new entry did not move the directory's mtime")
	}
}

func dirXattr(t *testing.T, dir string) {
	p := filepath.Join(dir, "f")
	put(t, p, "")
	err := unix.Setxattr(p, "user.one", []byte("value"), 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("no user.* attributes on the filesystem below")
	}
	ok(t, err)
	buf := make([]byte, 70000)
	n, err := unix.Getxattr(p, "user.one", buf)
	if err != nil || string(buf[:n]) != "value" {
		t.Errorf("getxattr: %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(p, "user.one", nil); n != 5 || err != nil {
		t.Errorf("size of the value: %d, %v", n, err)
	}
	_, err = unix.Getxattr(p, "user.none", buf)
	wantErr(t, "getxattr of none", err, syscall.ENODATA)
	_, err = unix.Getxattr(p, "security.capability", buf)
	wantErr(t, "file capability of a plain file", err, syscall.ENODATA)
	wantErr(t, "XATTR_CREATE of one that is there",
		unix.Setxattr(p, "user.one", []byte("x"), unix.XATTR_CREATE), syscall.EEXIST)
	wantErr(t, "XATTR_REPLACE of none",
		unix.Setxattr(p, "user.two", []byte("x"), unix.XATTR_REPLACE), syscall.ENODATA)
	ok(t, unix.Setxattr(p, "user.one", []byte("other"), unix.XATTR_REPLACE))
	ok(t, unix.Setxattr(p, "user.empty", nil, 0))
	if n, err := unix.Getxattr(p, "user.empty", buf); n != 0 || err != nil {
		t.Errorf("empty value: %d, %v", n, err)
	}
	n, err = unix.Listxattr(p, buf)
	list := string(buf[:max(n, 0)])
	if err != nil || !strings.Contains(list, "user.one\x00") || !strings.Contains(list, "user.empty\x00") {
		t.Errorf("listxattr: %q, %v", list, err)
	}
	ok(t, unix.Removexattr(p, "user.one"))
	_, err = unix.Getxattr(p, "user.one", buf)
	wantErr(t, "getxattr after removexattr", err, syscall.ENODATA)
	wantErr(t, "removexattr of none", unix.Removexattr(p, "user.one"), syscall.ENODATA)
}

func dirSpecial(t *testing.T, dir string) {
	for name, kind := range map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK} {
		p := filepath.Join(dir, name)
		ok(t, unix.Mknod(p, kind|0o600, 0))
		if m := lstat(t, p).Mode; m != kind|0o600 {
			t.Errorf("%s has mode %o", name, m)
		}
		ok(t, os.Chmod(p, 0o644))
		ok(t, os.Chown(p, 5, 6))
		ok(t, os.Rename(p, p+"2"))
		ok(t, os.Link(p+"2", p))
		ok(t, os.Remove(p+"2"))
	}
	// A FIFO works between processes of one system.
	p := filepath.Join(dir, "fifo")
	r, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	ok(t, err)
	defer r.Close()
	w, err := os.OpenFile(p, os.O_WRONLY, 0)
	ok(t, err)
	_, err = w.WriteString("through the pipe")
	ok(t, err)
	ok(t, w.Close())
	buf := make([]byte, 100)
	if n, err := r.Read(buf); string(buf[:max(n, 0)]) != "through the pipe" {
		t.Errorf("read %q, %v from the FIFO", buf[:max(n, 0)], err)
	}
}

func dirSocket(t *testing.T, dir string) {
	p := filepath.Join(dir, "s")
	if len(p) > 100 {
		t.Skip("path too long for a socket address")
	}
	l, err := net.Listen("unix", p)
	ok(t, err)
	c, err := net.Dial("unix", p)
	ok(t, err)
	ok(t, c.Close())
	ok(t, l.Close())
	wantErr(t, "socket after close", unix.Access(p, 0), syscall.ENOENT)
}

// dirWhiteout: overlayfs marks removed files so.
func dirWhiteout(t *testing.T, dir string) {
	p := filepath.Join(dir, "w")
	ok(t, unix.Mknod(p, unix.S_IFCHR, 0))
	if st := lstat(t, p); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout has mode %o, rdev %x", st.Mode, st.Rdev)
	}
	ok(t, os.Remove(p))
}

func dirStatfs(t *testing.T, dir string) {
	var st unix.Statfs_t
	ok(t, unix.Statfs(dir, &st))
	if st.Bsize <= 0 || st.Blocks == 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v", st)
	}
}

func dirNames(t *testing.T, dir string) {
	for _, n := range []string{strings.Repeat("n", 255), "\xff\xfe not UTF-8", "new\nline", " ", "...", "-rf", "日本"} {
		put(t, filepath.Join(dir, n), n)
		wantFile(t, filepath.Join(dir, n), n)
	}
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	if names, err := d.Readdirnames(-1); len(names) != 7 || err != nil {
		t.Errorf("%d names, %v", len(names), err)
	}
}
