package p9server

import (
	"sync"

	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// maxXattrName is XATTR_NAME_MAX.
const maxXattrName = 255

var xattrBufs = sync.Pool{New: func() any { return new([hostfs.MaxXattr]byte) }}

// xattrwalk makes newfid stand for the value of an attribute, or for the list
// of names if the name is empty. The value is read now, in one call, so a
// change at the same time shows either the old one or the new one
// (CVE-2017-15038).
func (s *Session) xattrwalk(r *Request) error {
	var m p9.Txattrwalk
	if err := m.Decode(r.body); err != nil {
		return err
	}
	gen := s.fids.generation()
	f, err := s.fileFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.node == nil {
		return unix.EOPNOTSUPP
	}
	if m.NewFID == m.FID {
		return unix.EINVAL
	}
	value, err := f.readXattr(m.Name)
	if err != nil {
		return err
	}
	x := &xattrFid{s: s, value: value}
	if err := x.charge(int64(len(value))); err != nil {
		return err
	}
	nf := &fid{exp: f.exp, node: f.node.Ref(), uid: f.uid, xattr: x}
	if err := s.addFid(m.NewFID, nf, gen); err != nil {
		return err
	}
	r.out.U64(uint64(len(value)))
	return nil
}

func (f *fid) readXattr(name []byte) ([]byte, error) {
	buf := xattrBufs.Get().(*[hostfs.MaxXattr]byte)
	defer xattrBufs.Put(buf)
	var n int
	var err error
	if len(name) == 0 {
		n, err = f.node.ListXattr(f.data(), f.exp.Xattrs, buf[:])
	} else if err = checkXattrName(name); err == nil {
		n, err = f.node.GetXattr(f.data(), f.exp.Xattrs, string(name), buf[:])
	}
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), buf[:n]...), nil
}

func checkXattrName(name []byte) error {
	switch {
	case len(name) == 0, len(name) > maxXattrName:
		return unix.ERANGE
	}
	for _, c := range name {
		if c == 0 {
			return unix.EINVAL
		}
	}
	return nil
}

// xattrcreate turns the fid into the value to be set: Twrite fills it, Tclunk
// sets it. Size 0 with XATTR_REPLACE is how Linux's client says removexattr.
func (s *Session) xattrcreate(r *Request) error {
	var m p9.Txattrcreate
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fileFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if err := f.mutable(); err != nil {
		return err
	}
	if err := checkXattrName(m.Name); err != nil {
		return err
	}
	switch {
	case f.open.Load() != nil:
		return unix.EBADF
	case m.Size > hostfs.MaxXattr:
		return unix.E2BIG
	case m.Flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0:
		return unix.EINVAL
	}
	x := &xattrFid{
		s: s, create: true, name: string(m.Name), size: m.Size, flags: int(m.Flags),
	}
	if err := x.charge(int64(m.Size)); err != nil {
		return err
	}
	nf := &fid{exp: f.exp, node: f.node.Ref(), uid: f.uid, xattr: x}
	return s.replaceFid(m.FID, f, nf)
}

// charge takes n bytes from the session's budget for attribute values.
func (x *xattrFid) charge(n int64) error {
	if x.s.xattrBytes.Add(n) > x.s.srv.limits.XattrBytes {
		x.s.xattrBytes.Add(-n)
		return unix.ENOMEM
	}
	x.charged = n
	return nil
}

// read copies up to n bytes at off into bufs behind the Rread header. A value
// that is being written cannot be read (CVE-2016-9103).
func (x *xattrFid) read(bufs [][]byte, n int, off uint64) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.create {
		return 0, unix.EBADF
	}
	if off >= uint64(len(x.value)) {
		return 0, nil
	}
	data := x.value[off:]
	data = data[:min(n, len(data))]
	scatter(bufs, p9.ReadHeaderSize, data)
	return len(data), nil
}

// write takes n bytes for offset off. They must follow each other: a value
// never has holes.
func (x *xattrFid) write(req [][]byte, n int, off uint64) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !x.create:
		return 0, unix.EBADF
	case off != uint64(len(x.value)):
		return 0, unix.EINVAL
	case uint64(n) > x.size-off:
		return 0, unix.ENOSPC
	}
	start := len(x.value)
	x.value = append(x.value, make([]byte, n)...)
	if gather(x.value[start:], req, p9.WriteHeaderSize) != n {
		x.value = x.value[:start]
		return 0, unix.EINVAL
	}
	return n, nil
}

// setXattr is the end of Txattrcreate. The fid is out of the table: nobody
// else uses it but requests already under way.
func (f *fid) setXattr() error {
	x := f.xattr
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.node == nil || f.exp.gone.Load() {
		return unix.ESTALE
	}
	if uint64(len(x.value)) != x.size {
		return unix.EINVAL // less was written than announced
	}
	if x.size == 0 && x.flags == unix.XATTR_REPLACE {
		return f.node.RemoveXattr(f.exp.Xattrs, x.name)
	}
	return f.node.SetXattr(f.exp.Xattrs, x.name, x.value, x.flags)
}
