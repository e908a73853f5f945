package p9server

import (
	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// made answers with the QID of a new file.
func (s *Session) made(r *Request, n *hostfs.Node, mode uint32, err error) error {
	if err != nil {
		return err
	}
	s.gaveSuid(mode)
	r.out.QID(n.QID())
	n.Unref()
	return nil
}

func (f *fid) owner(gid uint32) hostfs.Owner { return hostfs.Owner{UID: f.uid, GID: gid} }

// lcreate makes and opens a file; the fid moves from the directory to it.
func (s *Session) lcreate(r *Request) error {
	var m p9.Tlcreate
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.dirFid(m.FID, m.Name)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.open.Load() != nil {
		return unix.EBADF
	}
	node, file, err := f.node.Create(m.Name, m.Flags, m.Mode, f.owner(m.GID), f.exp.walkOptions(), f.exp.openOptions())
	if err != nil {
		return err
	}
	s.gaveSuid(m.Mode)
	nf := &fid{exp: f.exp, node: node, uid: f.uid}
	nf.opening.Store(true)
	nf.open.Store(&openFile{File: file})
	qid := node.QID()
	if err := s.replaceFid(m.FID, f, nf); err != nil {
		return err
	}
	r.out.QID(qid)
	r.out.U32(0) // iounit
	return nil
}

func (s *Session) symlink(r *Request) error {
	var m p9.Tsymlink
	if err := m.Decode(r.body); err != nil {
		return err
	}
	if len(m.Target) == 0 {
		return unix.ENOENT
	}
	f, err := s.dirFid(m.DFID, m.Name)
	if err != nil {
		return err
	}
	defer f.unref(s)
	n, err := f.node.Symlink(m.Name, m.Target, f.owner(m.GID))
	return s.made(r, n, 0, err)
}

// mknod makes regular files too: it is what Linux's client sends for creat(2)
// without an open, as knfsd or overlayfs do.
func (s *Session) mknod(r *Request) error {
	var m p9.Tmknod
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.dirFid(m.DFID, m.Name)
	if err != nil {
		return err
	}
	defer f.unref(s)
	var dev uint64
	switch m.Mode & unix.S_IFMT {
	case 0:
		m.Mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFCHR, unix.S_IFBLK:
		whiteout := m.Mode&unix.S_IFMT == unix.S_IFCHR && m.Major == 0 && m.Minor == 0
		if !whiteout && !f.exp.DeviceNodes {
			return unix.EPERM
		}
		dev = unix.Mkdev(m.Major, m.Minor)
	default:
		return unix.EINVAL
	}
	n, err := f.node.Mknod(m.Name, m.Mode, dev, f.owner(m.GID))
	return s.made(r, n, m.Mode, err)
}

func (s *Session) mkdir(r *Request) error {
	var m p9.Tmkdir
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.dirFid(m.DFID, m.Name)
	if err != nil {
		return err
	}
	defer f.unref(s)
	n, err := f.node.Mkdir(m.Name, m.Mode, f.owner(m.GID))
	return s.made(r, n, 0, err)
}

func (s *Session) link(r *Request) error {
	var m p9.Tlink
	if err := m.Decode(r.body); err != nil {
		return err
	}
	d, err := s.dirFid(m.DFID, m.Name)
	if err != nil {
		return err
	}
	defer d.unref(s)
	f, err := s.fid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.xattr != nil {
		return unix.EBADF
	}
	if f.exp != d.exp {
		return unix.EXDEV
	}
	return d.node.Link(m.Name, f.node)
}

// rename is the old form, which moves a file by its fid. A fid has no name, so
// it is declined; Linux's client sends Trenameat and would use this one only if
// that were declined.
func (s *Session) rename(r *Request) error {
	var m p9.Trename
	if err := m.Decode(r.body); err != nil {
		return err
	}
	return unix.EOPNOTSUPP
}

func (s *Session) renameat(r *Request) error {
	var m p9.Trenameat
	if err := m.Decode(r.body); err != nil {
		return err
	}
	from, err := s.dirFid(m.OldDirFID, m.OldName)
	if err != nil {
		return err
	}
	defer from.unref(s)
	to, err := s.dirFid(m.NewDirFID, m.NewName)
	if err != nil {
		return err
	}
	defer to.unref(s)
	if from.exp != to.exp {
		return unix.EXDEV
	}
	return from.node.Rename(m.OldName, to.node, m.NewName)
}

func (s *Session) unlinkat(r *Request) error {
	var m p9.Tunlinkat
	if err := m.Decode(r.body); err != nil {
		return err
	}
	if m.Flags&^p9.AtRemoveDir != 0 {
		return unix.EINVAL
	}
	f, err := s.dirFid(m.DirFID, m.Name)
	if err != nil {
		return err
	}
	defer f.unref(s)
	return f.node.Unlink(m.Name, m.Flags&p9.AtRemoveDir != 0)
}
