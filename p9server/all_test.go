package p9server_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	hp9 "github.com/hugelgupf/p9/p9"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

// TestAll runs the acceptance suite by raw frames.
func TestAll(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run as root")
	}
	p9test.All(t, func(t *testing.T, dir string) p9test.FS {
		s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: dir})
		sess := s.NewSession()
		t.Cleanup(sess.Close)
		r, err := p9test.NewRaw(sess)
		check(t, err)
		return &p9test.RawFS{Raw: r, UID: 1000}
	})
}

// TestAllClient runs it through an independent client over a connection.
func TestAllClient(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run as root")
	}
	p9test.All(t, func(t *testing.T, dir string) p9test.FS {
		s := newServer(t, p9server.Limits{}, p9server.Export{Name: "x", Root: dir})
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- p9test.ServeConn(s.NewSession(), there) }()
		c, err := hp9.NewClient(here)
		check(t, err)
		t.Cleanup(func() {
			check(t, here.Close())
			check(t, <-done)
		})
		return client{c}
	})
}

// client makes a p9test.FS of the other implementation's client.
type client struct{ c *hp9.Client }

type clientFile struct{ f hp9.File }

func (c client) Attach(export string) (p9test.File, error) {
	f, err := c.c.Attach(export)
	return &clientFile{f}, errno(err)
}

// errno makes the client's errors those of package syscall.
func errno(err error) error {
	var e linux.Errno
	if errors.As(err, &e) {
		return syscall.Errno(e)
	}
	return err
}

func (c *clientFile) Walk(names ...string) (p9test.File, error) {
	qids, f, err := c.f.Walk(names)
	if err == nil && len(qids) != len(names) {
		err = syscall.ENOENT // this client takes a walk half way for one
	}
	return &clientFile{f}, errno(err)
}

// Lacks: it sends 9 bits of a mode, and no group in Tmkdir.
func (c *clientFile) Lacks(string) bool { return true }

func (c *clientFile) Open(flags uint32) error {
	_, _, err := c.f.Open(hp9.OpenFlags(flags))
	return errno(err)
}

func (c *clientFile) Create(name string, flags, mode, gid uint32) error {
	_, _, _, err := c.f.Create(name, hp9.OpenFlags(flags), hp9.FileMode(mode), 0, hp9.GID(gid))
	return errno(err)
}

func (c *clientFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.f.ReadAt(p, off)
	return n, errno(err)
}

func (c *clientFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := c.f.WriteAt(p, off)
	return n, errno(err)
}

func (c *clientFile) Readdir(off uint64, count uint32) ([]p9test.Entry, error) {
	ents, err := c.f.Readdir(off, count)
	var out []p9test.Entry
	for _, e := range ents {
		out = append(out, p9test.Entry{
			QID:    p9.QID{Type: uint8(e.QID.Type), Version: e.QID.Version, Path: e.QID.Path},
			Offset: e.Offset, Type: uint8(e.Type), Name: e.Name,
		})
	}
	return out, errno(err)
}

func (c *clientFile) GetAttr() (p9.Attr, error) {
	q, _, a, err := c.f.GetAttr(hp9.AttrMaskAll)
	return p9.Attr{
		QID:  p9.QID{Type: uint8(q.Type), Version: q.Version, Path: q.Path},
		Mode: uint32(a.Mode), UID: uint32(a.UID), GID: uint32(a.GID), Nlink: uint64(a.NLink),
		Rdev: uint64(a.RDev), Size: a.Size, Blksize: a.BlockSize, Blocks: a.Blocks,
		Atime: p9.Time{Sec: a.ATimeSeconds, Nsec: a.ATimeNanoSeconds},
		Mtime: p9.Time{Sec: a.MTimeSeconds, Nsec: a.MTimeNanoSeconds},
		Ctime: p9.Time{Sec: a.CTimeSeconds, Nsec: a.CTimeNanoSeconds},
	}, errno(err)
}

func (c *clientFile) SetAttr(m p9.Tsetattr) error {
	has := func(bit uint32) bool { return m.Valid&bit != 0 }
	return errno(c.f.SetAttr(hp9.SetAttrMask{
		Permissions: has(p9.AttrMode), UID: has(p9.AttrUID), GID: has(p9.AttrGID), Size: has(p9.AttrSize),
		ATime: has(p9.AttrAtime), MTime: has(p9.AttrMtime), CTime: has(p9.AttrCtime),
		ATimeNotSystemTime: has(p9.AttrAtimeSet), MTimeNotSystemTime: has(p9.AttrMtimeSet),
	}, hp9.SetAttr{
		Permissions: hp9.FileMode(m.Mode), UID: hp9.UID(m.UID), GID: hp9.GID(m.GID), Size: m.Size,
		ATimeSeconds: m.AtimeSec, ATimeNanoSeconds: m.AtimeNsec,
		MTimeSeconds: m.MtimeSec, MTimeNanoSeconds: m.MtimeNsec,
	}))
}

func (c *clientFile) Mkdir(name string, mode, gid uint32) error {
	_, err := c.f.Mkdir(name, hp9.FileMode(mode), 0, hp9.GID(gid))
	return errno(err)
}

func (c *clientFile) Symlink(name, target string, gid uint32) error {
	_, err := c.f.Symlink(target, name, 0, hp9.GID(gid))
	return errno(err)
}

func (c *clientFile) Mknod(name string, mode, major, minor, gid uint32) error {
	_, err := c.f.Mknod(name, hp9.FileMode(mode), major, minor, 0, hp9.GID(gid))
	return errno(err)
}

func (c *clientFile) Link(name string, target p9test.File) error {
	return errno(c.f.Link(target.(*clientFile).f, name))
}

func (c *clientFile) RenameAt(name string, to p9test.File, newName string) error {
	return errno(c.f.RenameAt(name, to.(*clientFile).f, newName))
}

func (c *clientFile) UnlinkAt(name string, flags uint32) error {
	return errno(c.f.UnlinkAt(name, flags))
}

func (c *clientFile) Readlink() (string, error) {
	s, err := c.f.Readlink()
	return s, errno(err)
}

func (c *clientFile) Fsync() error { return errno(c.f.FSync()) }
func (c *clientFile) Close() error { return errno(c.f.Close()) }
