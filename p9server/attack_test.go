package p9server_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
	"golang.org/x/sys/unix"
)

// everyOp calls do with every operation on fid, a file that is not a
// directory, and on an entry name below it. Fids from 50 on are free.
func everyOp(r *p9test.Raw, fid uint32, do func(what string, err error)) {
	call := func(what string, m p9.Message) {
		_, err := r.Call(m)
		do(what, err)
		for f := uint32(50); f < 60; f++ {
			_ = r.Clunk(f)
		}
	}
	n := []byte("child")
	for _, flags := range []uint32{
		0, p9.OpenWRONLY, p9.OpenRDWR, p9.OpenRDWR | p9.OpenTRUNC, p9.OpenTRUNC, p9.OpenNONBLOCK,
		p9.OpenDIRECTORY, p9.OpenNOFOLLOW | 0o10000000 /* O_PATH */, 0xffffffff,
	} {
		check2 := r.Walk(fid, 51)
		if check2 != nil {
			do("clone", check2)
		}
		call(fmt.Sprintf("lopen %o", flags), &p9.Tlopen{FID: 51, Flags: flags})
	}
	call("read", &p9.Tread{FID: fid, Count: 10})
	call("readdir", &p9.Treaddir{FID: fid, Count: 1000})
	call("fsync", &p9.Tfsync{FID: fid})
	call("lock", &p9.Tlock{FID: fid, Kind: p9.LockTypeWRLCK})
	call("getlock", &p9.Tgetlock{FID: fid, Kind: p9.LockTypeWRLCK})
	call("walk through", walkTo(fid, 50, "sentinel"))
	call("setattr size", &p9.Tsetattr{FID: fid, Valid: p9.AttrSize})
	call("setattr mode", &p9.Tsetattr{FID: fid, Valid: p9.AttrMode, Mode: 0o666})
	call("setattr owner", &p9.Tsetattr{FID: fid, Valid: p9.AttrUID | p9.AttrGID, UID: 7, GID: 8})
	call("setattr times", &p9.Tsetattr{FID: fid, Valid: p9.AttrAtime | p9.AttrMtime | p9.AttrAtimeSet | p9.AttrMtimeSet})
	call("setattr ctime", &p9.Tsetattr{FID: fid, Valid: p9.AttrCtime})
	call("xattr list", &p9.Txattrwalk{FID: fid, NewFID: 50})
	call("xattr get", &p9.Txattrwalk{FID: fid, NewFID: 50, Name: []byte("user.secret")})
	for _, name := range []string{"user.a", "security.capability", "trusted.a"} {
		if r.Walk(fid, 51) == nil {
			if _, err := r.Call(&p9.Txattrcreate{FID: 51, Name: []byte(name), Size: 1}); err == nil {
				_, _ = r.Write(51, 0, []byte("x"))
			}
			call("xattr set "+name, &p9.Tclunk{FID: 51})
		}
	}
	call("lcreate", &p9.Tlcreate{FID: fid, Name: n, Flags: p9.OpenRDWR, Mode: 0o644})
	call("mkdir", &p9.Tmkdir{DFID: fid, Name: n, Mode: 0o755})
	call("mknod", &p9.Tmknod{DFID: fid, Name: n, Mode: unix.S_IFIFO})
	call("symlink", &p9.Tsymlink{DFID: fid, Name: n, Target: n})
	call("link into", &p9.Tlink{DFID: fid, FID: 0, Name: n})
	call("unlinkat", &p9.Tunlinkat{DirFID: fid, Name: []byte("sentinel")})
	call("renameat from", &p9.Trenameat{OldDirFID: fid, OldName: []byte("sentinel"), NewDirFID: 0, NewName: n})
	call("renameat to", &p9.Trenameat{OldDirFID: 0, OldName: []byte("file"), NewDirFID: fid, NewName: n})
	call("statfs", &p9.Tstatfs{FID: fid})
	call("getattr", &p9.Tgetattr{FID: fid, Mask: p9.StatsBasic})
}

// allowed are the operations that a file which cannot be opened does have.
var allowed = map[string]bool{
	"setattr owner": true, "setattr times": true, "setattr ctime": true, "xattr list": true,
	"statfs": true, "getattr": true,
}

// TestSymlinks does every operation on fids of symlinks that lead out of the
// export (CVE-2016-9602, 2017-7471; hugelgupf E1–E3; Kata 2026-47243).
func TestSymlinks(t *testing.T) {
	o := newOutside(t, t.TempDir())
	s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: o.export()})
	r := newRaw(t, s)
	for i, name := range []string{"out", "outdir", "up", "rel"} {
		fid := uint32(i + 1)
		check(t, r.Walk(0, fid, name))
		everyOp(r, fid, func(what string, err error) {
			if (err == nil) != allowed[what] {
				t.Errorf("%s of symlink %s: %v", what, name, err)
			}
		})
		o.check(t)
		body, err := r.Call(&p9.Treadlink{FID: fid})
		if err != nil || len(body) < 4 {
			t.Errorf("readlink of %s: %q, %v", name, body, err)
		}
		// A walk of several names stops at it.
		want(t, "walk through "+name, r.Walk(0, 40, name, "sentinel"), syscall.ENOENT)
		// Opening by name for create does not follow it either.
		check(t, r.Walk(0, 41))
		want(t, "create over "+name, r.Create(41, name, p9.OpenRDWR|p9.OpenTRUNC, 0o644, 0), syscall.ELOOP)
		want(t, "exclusive create over "+name, r.Create(41, name, p9.OpenRDWR|p9.OpenEXCL, 0o644, 0), syscall.EEXIST)
		check(t, r.Clunk(41))
	}
	// A hard link to a symlink is a symlink, not a way in.
	_, err := r.Call(&p9.Tlink{DFID: 0, FID: 1, Name: []byte("hard")})
	check(t, err)
	if st, err := os.Lstat(filepath.Join(o.export(), "hard")); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("hard link of a symlink: %v, %v", st, err)
	}
	o.check(t)
}

// TestSpecialFiles: devices, FIFOs and sockets of the host are never opened
// and nothing waits for a peer (CVE-2023-2861), but they can be looked at,
// moved and removed (qemu#2337).
func TestSpecialFiles(t *testing.T) {
	o := newOutside(t, t.TempDir())
	s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: o.export()})
	r := newRaw(t, s)
	l, err := net.Listen("unix", filepath.Join(o.export(), "live"))
	check(t, err)
	defer l.Close()
	for i, name := range []string{"fifo", "socket", "null", "live"} {
		if _, err := os.Lstat(filepath.Join(o.export(), name)); err != nil {
			continue // device nodes cannot be made everywhere
		}
		fid := uint32(i + 1)
		check(t, r.Walk(0, fid, name))
		everyOp(r, fid, func(what string, err error) {
			if (err == nil) != (allowed[what] || what == "setattr mode") {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		})
		check(t, r.Walk(0, 41))
		want(t, "create over "+name, r.Create(41, name, p9.OpenRDWR, 0o644, 0), syscall.ENXIO)
		check(t, r.Clunk(41))
		_, err := r.Call(&p9.Trenameat{OldDirFID: 0, OldName: []byte(name), NewDirFID: 0, NewName: []byte("moved")})
		check(t, err)
		_, err = r.Call(&p9.Tlink{DFID: 0, FID: fid, Name: []byte("again")})
		check(t, err)
		for _, n := range []string{"moved", "again"} {
			_, err = r.Call(&p9.Tunlinkat{DirFID: 0, Name: []byte(n)})
			check(t, err)
		}
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	o.check(t)
}

func TestDevicePolicy(t *testing.T) {
	mknod := func(r *p9test.Raw, name string, mode, major, minor uint32) error {
		_, err := r.Call(&p9.Tmknod{DFID: 0, Name: []byte(name), Mode: mode, Major: major, Minor: minor})
		return err
	}
	r, dir, _ := serve(t)
	want(t, "char device", mknod(r, "c", unix.S_IFCHR|0o666, 1, 3), syscall.EPERM)
	want(t, "block device", mknod(r, "b", unix.S_IFBLK|0o666, 8, 0), syscall.EPERM)
	want(t, "block device 0:0", mknod(r, "b", unix.S_IFBLK|0o666, 0, 0), syscall.EPERM)
	want(t, "directory", mknod(r, "d", unix.S_IFDIR|0o755, 0, 0), syscall.EINVAL)
	want(t, "symlink", mknod(r, "l", unix.S_IFLNK|0o777, 0, 0), syscall.EINVAL)
	want(t, "nonsense", mknod(r, "n", 0o170000, 0, 0), syscall.EINVAL)
	check(t, mknod(r, "fifo", unix.S_IFIFO|0o600, 0, 0))
	check(t, mknod(r, "sock", unix.S_IFSOCK|0o600, 0, 0))
	check(t, mknod(r, "reg", unix.S_IFREG|0o600, 0, 0))
	err := mknod(r, "whiteout", unix.S_IFCHR, 0, 0)
	if err != nil && os.Getuid() == 0 {
		t.Errorf("whiteout: %v", err)
	}
	if n := len(onHost(t, dir)); n < 3 {
		t.Errorf("%d entries made", n)
	}
	r, _, _ = serve(t, func(e *p9server.Export) { e.DeviceNodes = true })
	if err := mknod(r, "null", unix.S_IFCHR|0o666, 1, 3); err != nil {
		t.Skipf("this host makes no device nodes: %v (run as root outside a user namespace)", err)
	}
	check(t, r.Walk(0, 1, "null"))
	body, err := r.Call(&p9.Tgetattr{FID: 1, Mask: p9.StatsBasic})
	check(t, err)
	if rdev := binary.LittleEndian.Uint64(body[8+13+4+4+4+8:]); rdev != 1<<8|3 {
		t.Errorf("rdev %#x, want 1:3", rdev)
	}
	want(t, "open of it", r.Open(1, 0), syscall.ENXIO)
}

// TestSwap has a host process replace directories by symlinks that lead out,
// while a guest walks, creates, writes and removes below them.
func TestSwap(t *testing.T) {
	o := newOutside(t, t.TempDir())
	s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: o.export()})
	d, tmp := filepath.Join(o.export(), "dir"), filepath.Join(o.export(), "tmp")
	evil := filepath.Join(o.export(), "evil")
	check(t, os.Symlink(filepath.Join(o.dir, "secrets"), evil))
	// A victim with the sentinel's name, so that following the link hits.
	check(t, os.WriteFile(filepath.Join(d, "sentinel"), []byte("decoy"), 0o644))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, evil, unix.RENAME_EXCHANGE)
			_ = os.Rename(d, tmp)
			_ = os.Rename(tmp, d)
		}
	}()
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	var guests sync.WaitGroup
	for g := range 3 {
		guests.Add(1)
		r := newRaw(t, s)
		go func() {
			defer guests.Done()
			entered := 0
			for range rounds {
				if r.Walk(0, 1, "dir") == nil {
					mine := []byte(fmt.Sprintf("g%d", g))
					if r.Walk(1, 2, "sentinel") == nil {
						entered++
						if r.Open(2, p9.OpenRDWR) == nil {
							if data, _ := r.Read(2, 0, 100); bytes.Contains(data, []byte(secret)) {
								t.Error("read the sentinel")
							}
							_, _ = r.Write(2, 0, []byte("XXXX"))
						}
						_, _ = r.Call(&p9.Tsetattr{FID: 2, Valid: p9.AttrMode, Mode: 0o777})
						_ = r.Clunk(2)
					}
					_, _ = r.Call(&p9.Tmkdir{DFID: 1, Name: mine, Mode: 0o755})
					_, _ = r.Call(&p9.Tunlinkat{DirFID: 1, Name: mine, Flags: p9.AtRemoveDir})
					_, _ = r.Call(&p9.Tunlinkat{DirFID: 1, Name: []byte("no such"), Flags: 0})
					_ = r.Clunk(1)
				}
			}
			if entered == 0 {
				t.Error("no walk got in between: the test shows nothing")
			}
		}()
	}
	guests.Wait()
	close(stop)
	wg.Wait()
	o.check(t)
}

// TestReadOnly: every operation that changes something is EROFS, everything
// else works.
func TestReadOnly(t *testing.T) {
	r, dir, _ := serve(t, func(e *p9server.Export) { e.ReadOnly = true })
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o644))
	check(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	before, err := os.Stat(filepath.Join(dir, "f"))
	check(t, err)
	check(t, r.Walk(0, 1, "f"))
	n := []byte("new")
	f, d := []byte("f"), []byte("d")
	for what, m := range map[string]p9.Message{
		"open for writing":      &p9.Tlopen{FID: 1, Flags: p9.OpenWRONLY},
		"open for both":         &p9.Tlopen{FID: 1, Flags: p9.OpenRDWR},
		"open with access 3":    &p9.Tlopen{FID: 1, Flags: 3},
		"open with O_TRUNC":     &p9.Tlopen{FID: 1, Flags: p9.OpenTRUNC},
		"lcreate":               &p9.Tlcreate{FID: 0, Name: n, Flags: p9.OpenRDWR},
		"lcreate of a file":     &p9.Tlcreate{FID: 0, Name: f, Flags: p9.OpenRDONLY},
		"symlink":               &p9.Tsymlink{DFID: 0, Name: n, Target: n},
		"mknod":                 &p9.Tmknod{DFID: 0, Name: n, Mode: unix.S_IFIFO},
		"mkdir":                 &p9.Tmkdir{DFID: 0, Name: n},
		"link":                  &p9.Tlink{DFID: 0, FID: 1, Name: n},
		"renameat":              &p9.Trenameat{OldDirFID: 0, OldName: f, NewDirFID: 0, NewName: n},
		"unlinkat":              &p9.Tunlinkat{DirFID: 0, Name: f},
		"unlinkat of directory": &p9.Tunlinkat{DirFID: 0, Name: d, Flags: p9.AtRemoveDir},
		"setattr mode":          &p9.Tsetattr{FID: 1, Valid: p9.AttrMode},
		"setattr size":          &p9.Tsetattr{FID: 1, Valid: p9.AttrSize},
		"setattr times":         &p9.Tsetattr{FID: 1, Valid: p9.AttrMtime},
		"setattr nothing":       &p9.Tsetattr{FID: 1},
		"xattrcreate":           &p9.Txattrcreate{FID: 1, Name: []byte("user.a"), Size: 1},
		"xattr removal":         &p9.Txattrcreate{FID: 1, Name: []byte("user.a"), Flags: unix.XATTR_REPLACE},
	} {
		_, err := r.Call(m)
		want(t, what, err, syscall.EROFS)
	}
	check(t, r.Open(1, p9.OpenRDONLY))
	_, err = r.Write(1, 0, []byte("x"))
	want(t, "write", err, syscall.EBADF)
	if got, err := r.Read(1, 0, 10); string(got) != "data" || err != nil {
		t.Errorf("read: %q, %v", got, err)
	}
	_, err = r.Call(&p9.Tlock{FID: 1, Kind: p9.LockTypeRDLCK})
	check(t, err)
	after, err := os.Stat(filepath.Join(dir, "f"))
	check(t, err)
	if !before.ModTime().Equal(after.ModTime()) || before.Mode() != after.Mode() {
		t.Errorf("the file changed: %v, %v", before, after)
	}
	if names := onHost(t, dir); len(names) != 2 {
		t.Errorf("the directory has %v", names)
	}
}

// TestExports: nothing moves from one export to another, and a removed one is
// gone at once.
func TestExports(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	file := filepath.Join(a, "f")
	check(t, os.WriteFile(file, []byte("single"), 0o644))
	s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: a},
		p9server.Export{Name: "b", Root: b}, p9server.Export{Name: "one", Root: file})
	r := newRaw(t, s)
	check(t, r.Attach(10, "", 0))
	check(t, r.Walk(10, 11, "b"))
	check(t, r.Walk(10, 12, "one"))
	check(t, r.Walk(0, 13, "f"))
	_, err := r.Call(&p9.Tlink{DFID: 11, FID: 13, Name: []byte("f")})
	want(t, "link to another export", err, syscall.EXDEV)
	_, err = r.Call(&p9.Trenameat{OldDirFID: 0, OldName: []byte("f"), NewDirFID: 11, NewName: []byte("f")})
	want(t, "rename to another export", err, syscall.EXDEV)
	for what, m := range map[string]p9.Message{
		"mkdir":    &p9.Tmkdir{DFID: 10, Name: []byte("n")},
		"lcreate":  &p9.Tlcreate{FID: 10, Name: []byte("n")},
		"unlink":   &p9.Tunlinkat{DirFID: 10, Name: []byte("one")},
		"rename":   &p9.Trenameat{OldDirFID: 10, OldName: []byte("b"), NewDirFID: 10, NewName: []byte("c")},
		"link":     &p9.Tlink{DFID: 10, FID: 13, Name: []byte("n")},
		"setattr":  &p9.Tsetattr{FID: 10, Valid: p9.AttrMode},
		"xattrset": &p9.Txattrcreate{FID: 10, Name: []byte("user.a"), Size: 1},
	} {
		_, err := r.Call(m)
		want(t, what+" in the synthetic root", err, syscall.EROFS)
	}
	_, err = r.Call(&p9.Txattrwalk{FID: 10, NewFID: 20})
	want(t, "xattrs of the synthetic root", err, syscall.EOPNOTSUPP)
	want(t, "walk out of it", r.Walk(10, 20, ".."), syscall.EINVAL)
	check(t, r.Open(10, 0))
	check(t, r.Open(12, p9.OpenRDWR))
	if got, err := r.Read(12, 0, 10); string(got) != "single" || err != nil {
		t.Errorf("single-file export: %q, %v", got, err)
	}

	if err := s.AddExport(p9server.Export{Name: "b", Root: a}); !errors.Is(err, p9server.ErrExportExists) {
		t.Errorf("second export of the name: %v", err)
	}
	for _, name := range []string{"", "..", "a/b"} {
		if s.AddExport(p9server.Export{Name: name, Root: a}) == nil {
			t.Errorf("export named %q", name)
		}
	}
	fds := s.FDs()
	check(t, s.RemoveExport("one"))
	if got := s.FDs(); got != fds-2 {
		t.Errorf("%d fds after an open single-file export was removed, want %d", got, fds-2)
	}
	_, err = r.Read(12, 0, 10)
	want(t, "read in a removed export", err, syscall.ESTALE)
	_, err = r.Call(&p9.Tgetattr{FID: 12})
	want(t, "getattr in a removed export", err, syscall.ESTALE)
	check(t, r.Clunk(12))
	want(t, "walk to a removed export", r.Walk(10, 21, "one"), syscall.ENOENT)
	if err := s.RemoveExport("one"); !errors.Is(err, p9server.ErrNoExport) {
		t.Errorf("second removal: %v", err)
	}
}
