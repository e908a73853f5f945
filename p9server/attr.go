package p9server

import (
	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// maxBlksize is the largest st_blksize reported. Programs size their buffers
// by it, and every read is a message: larger than the host's 4 KiB is better.
const maxBlksize = 128 << 10

// fileFid returns a fid that stands for a file, with a reference.
func (s *Session) fileFid(n uint32) (*fid, error) {
	f, err := s.fid(n)
	if err != nil {
		return nil, err
	}
	if f.xattr != nil {
		f.unref(s)
		return nil, unix.EBADF
	}
	return f, nil
}

func (s *Session) readlink(r *Request) error {
	var m p9.Treadlink
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fileFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.node == nil {
		return unix.EINVAL
	}
	var target [unix.PathMax]byte
	n, err := f.node.Readlink(target[:])
	if err != nil {
		return err
	}
	r.out.Str(target[:n])
	return nil
}

func (s *Session) getattr(r *Request) error {
	var m p9.Tgetattr
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fileFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	var a p9.Attr
	if f.node == nil {
		s.rootAttr(&a)
	} else if err := s.stat(f.node, &a); err != nil {
		return err
	}
	r.out.Attr(&a)
	return nil
}

func (s *Session) stat(n *hostfs.Node, a *p9.Attr) error {
	if err := n.Stat(a); err != nil {
		return err
	}
	if k := n.Kind(); k == unix.S_IFREG || k == unix.S_IFDIR {
		a.Blksize = max(a.Blksize, s.blksize())
	}
	return nil
}

// blksize is the largest power of two that one message carries.
func (s *Session) blksize() uint64 {
	size := uint64(maxBlksize)
	for limit := uint64(s.msize.Load()) - p9.IOHeaderSize; size > limit; {
		size /= 2
	}
	return size
}

func (s *Session) setattr(r *Request) error {
	var m p9.Tsetattr
	if err := m.Decode(r.body); err != nil {
		return err
	}
	if m.Valid&^p9.AttrAll != 0 {
		return unix.EINVAL
	}
	f, err := s.fileFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if err := f.mutable(); err != nil {
		return err
	}
	return s.setAttrs(f, &m)
}

// setAttrs applies the changes in the order that keeps them all: a chown
// clears set-user-ID bits that the same message may set, and a truncation moves
// the times that it may set.
func (s *Session) setAttrs(f *fid, m *p9.Tsetattr) error {
	n := f.node
	const owner = p9.AttrUID | p9.AttrGID
	if m.Valid&owner != 0 || m.Valid == p9.AttrCtime {
		uid, gid := uint32(p9.NoUID), uint32(p9.NoUID)
		if m.Valid&p9.AttrUID != 0 {
			uid = m.UID
		}
		if m.Valid&p9.AttrGID != 0 {
			gid = m.GID
		}
		if err := n.Chown(uid, gid); err != nil {
			return err
		}
	}
	if m.Valid&p9.AttrSize != 0 {
		if err := n.SetSize(f.data(), m.Size); err != nil {
			return err
		}
		if err := s.strip(f, f.open.Load()); err != nil {
			return err
		}
	}
	if m.Valid&p9.AttrMode != 0 {
		if err := n.Chmod(m.Mode & 0o7777); err != nil {
			return err
		}
		s.gaveSuid(m.Mode)
	}
	if m.Valid&(p9.AttrAtime|p9.AttrMtime) != 0 {
		atime, err := timespec(m.Valid, p9.AttrAtime, p9.AttrAtimeSet, m.AtimeSec, m.AtimeNsec)
		if err != nil {
			return err
		}
		mtime, err := timespec(m.Valid, p9.AttrMtime, p9.AttrMtimeSet, m.MtimeSec, m.MtimeNsec)
		if err != nil {
			return err
		}
		return n.Utimes(atime, mtime)
	}
	return nil
}

// timespec is one argument of utimensat: the given time if set is in valid
// too, else the server's now.
func timespec(valid, attr, set uint32, sec, nsec uint64) (unix.Timespec, error) {
	switch {
	case valid&attr == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}, nil
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}, nil
	case nsec >= 1e9:
		return unix.Timespec{}, unix.EINVAL
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}, nil
}
