package p9server

import (
	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// fid returns fid n with a reference, if its export is still there.
func (s *Session) fid(n uint32) (*fid, error) {
	f, err := s.fids.get(n)
	if err != nil {
		return nil, err
	}
	if f.exp != nil && f.exp.gone.Load() {
		f.unref(s)
		return nil, unix.ESTALE
	}
	return f, nil
}

// dirFid is fid for messages that name an entry of a directory: the name is
// checked, and the directory must be one that can be changed.
func (s *Session) dirFid(n uint32, name []byte) (*fid, error) {
	if err := p9.CheckName(name); err != nil {
		return nil, err
	}
	f, err := s.fid(n)
	if err != nil {
		return nil, err
	}
	switch {
	case f.xattr != nil:
		err = unix.EBADF
	case f.mutable() != nil:
		err = unix.EROFS
	case f.node.Kind() != unix.S_IFDIR:
		err = unix.ENOTDIR
	}
	if err != nil {
		f.unref(s)
		return nil, err
	}
	return f, nil
}

// auth is refused: there is nothing to authenticate inside one VM.
func (s *Session) auth(*Request) error { return unix.EOPNOTSUPP }

func (s *Session) attach(r *Request) error {
	var m p9.Tattach
	if err := m.Decode(r.body); err != nil {
		return err
	}
	if m.AFID != p9.NoFID {
		return unix.EINVAL
	}
	gen := s.fids.generation()
	f := &fid{uid: m.NUname}
	name := m.Aname
	if len(name) > 0 && name[0] == '/' {
		name = name[1:]
	}
	if len(name) > 0 {
		if err := p9.CheckName(name); err != nil {
			return err
		}
		var ok bool
		if f.exp, f.node, ok = s.srv.lookup(name); !ok {
			return unix.ENOENT
		}
	}
	qid := f.qid(s)
	if err := s.addFid(m.FID, f, gen); err != nil {
		return err
	}
	r.out.QID(qid)
	return nil
}

// addFid puts a new fid into the table, or gives up what it holds.
func (s *Session) addFid(n uint32, f *fid, gen uint64) error {
	err := s.fids.insert(n, f, gen, s.srv.limits.Fids)
	if err != nil {
		f.unref(s)
		return err
	}
	// The export may have gone after it was looked up and before the fid was
	// there for RemoveExport to see.
	if f.exp != nil && f.exp.gone.Load() {
		s.dropExport(f.exp)
	}
	return nil
}

// place is where a walk stands.
type place struct {
	exp  *export
	node *hostfs.Node // with a reference; nil in the synthetic root
}

func (p place) unref() {
	if p.node != nil {
		p.node.Unref()
	}
}

func (s *Session) walk(r *Request) error {
	var m p9.Twalk
	if err := m.Decode(r.body); err != nil {
		return err
	}
	gen := s.fids.generation()
	f, err := s.fid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.xattr != nil || m.FID == m.NewFID && f.open.Load() != nil {
		return unix.EINVAL
	}
	at := place{exp: f.exp, node: f.node}
	if at.node != nil {
		at.node.Ref()
	}
	r.out.U16(uint16(m.N))
	for i, name := range m.Names[:m.N] {
		next, err := s.step(at, name)
		at.unref()
		if err != nil {
			if i == 0 {
				return err
			}
			// A walk that fails on the way answers what it found, and makes
			// no fid.
			r.out.SetU16(p9.HeaderSize, uint16(i))
			return nil
		}
		at = next
		if at.node != nil {
			r.out.QID(at.node.QID())
		}
	}
	if r.room == p9.WalkAttrSize && m.N == 1 && at.node != nil {
		// Whoever looks a name up asks for the attributes next. Without them he does.
		var a p9.Attr
		if s.stat(at.node, &a) == nil {
			r.out.Attr(&a)
		}
	}
	nf := &fid{exp: at.exp, node: at.node, uid: f.uid}
	if m.NewFID != m.FID {
		return s.addFid(m.NewFID, nf, gen)
	}
	return s.replaceFid(m.FID, f, nf)
}

// replaceFid lets number n stand for nf instead of f, of which the caller has
// a reference of its own.
func (s *Session) replaceFid(n uint32, f, nf *fid) error {
	if err := s.fids.replace(n, f, nf); err != nil {
		nf.refs.Store(1)
		nf.unref(s)
		return err
	}
	f.unref(s) // the table's
	if nf.exp != nil && nf.exp.gone.Load() {
		s.dropExport(nf.exp)
	}
	return nil
}

// step walks one name.
func (s *Session) step(at place, name []byte) (place, error) {
	if err := p9.CheckName(name); err != nil {
		return place{}, err
	}
	if at.node == nil {
		exp, node, ok := s.srv.lookup(name)
		if !ok {
			return place{}, unix.ENOENT
		}
		return place{exp: exp, node: node}, nil
	}
	node, err := at.node.Walk(name, at.exp.walkOptions())
	if err != nil {
		return place{}, err
	}
	return place{exp: at.exp, node: node}, nil
}

func (e *export) walkOptions() hostfs.WalkOptions {
	return hostfs.WalkOptions{NoXDev: e.NoXDev}
}

func (e *export) openOptions() hostfs.OpenOptions {
	return hostfs.OpenOptions{Append: e.HostAppend}
}

func (s *Session) clunk(r *Request) error {
	var m p9.Tclunk
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fids.remove(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.xattr != nil && f.xattr.create {
		return f.setXattr()
	}
	return nil
}

// remove takes the fid away, as Tremove always does, and says that it cannot
// remove the file: a fid knows no name. Linux's client sends Tunlinkat.
func (s *Session) remove(r *Request) error {
	var m p9.Tremove
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fids.remove(m.FID)
	if err != nil {
		return err
	}
	f.unref(s)
	return unix.EOPNOTSUPP
}

func (s *Session) statfs(r *Request) error {
	var m p9.Tstatfs
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	var st p9.Statfs
	if f.node == nil {
		rootStatfs(&st)
	} else if err := f.node.Statfs(&st); err != nil {
		return err
	}
	r.out.Statfs(&st)
	return nil
}
