package p9server

import (
	"sync"
	"sync/atomic"

	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// fid is what a fid number stands for. The file it means never changes: where
// 9P moves a fid (a walk onto itself, Tlcreate, Txattrcreate) the number gets a
// new fid. A request holds a reference to the fids it uses, so that a Tclunk at
// the same time closes nothing under it (CVE-2021-20181).
//
//	           Tattach, Twalk            Tlopen (Tlcreate makes one open)
//	(no fid) ─────────────────> walked ─────────────────────────────────> open
//	   ^                          │ │                                      │
//	   │        Txattrwalk        │ └──────────── Txattrcreate ──> xattr   │
//	   └──────────────────────────┴───── Tclunk, Tversion ─────────────────┘
type fid struct {
	refs atomic.Int32
	exp  *export      // nil: the synthetic root
	node *hostfs.Node // nil: the synthetic root
	uid  uint32       // n_uname of the attach: whom new files belong to

	opening atomic.Bool
	locked  atomic.Bool // has been in the lock table
	open    atomic.Pointer[openFile]
	xattr   *xattrFid // not nil: an attribute, not the file
}

// openFile is the open state of a fid.
type openFile struct {
	*hostfs.File // nil: the synthetic root
	// cleanAt is Server.suidEpoch+1 of the time when the mode was last seen to
	// have no set-user-ID bits that a write would have to clear; 0 is never.
	cleanAt atomic.Uint64
}

// xattrFid is an attribute value that is read or written through a fid.
type xattrFid struct {
	s       *Session
	mu      sync.Mutex
	value   []byte // guarded by mu
	charged int64  // bytes taken from Limits.XattrBytes

	create bool // Txattrcreate: written, then set by Tclunk
	name   string
	size   uint64
	flags  int
}

// mutable says whether the file may be changed at all.
func (f *fid) mutable() error {
	if f.exp == nil || f.exp.ReadOnly {
		return unix.EROFS
	}
	return nil
}

// file is the host file of an open fid.
func (f *fid) file() (*openFile, error) {
	of := f.open.Load()
	if of == nil || f.xattr != nil {
		return nil, unix.EBADF
	}
	return of, nil
}

// data is the data fd if there is one.
func (f *fid) data() *hostfs.File {
	if of := f.open.Load(); of != nil {
		return of.File
	}
	return nil
}

func (f *fid) qid(s *Session) p9.QID {
	if f.node == nil {
		return s.rootQID()
	}
	return f.node.QID()
}

// unref drops a reference; the last one closes the fds, and with them the
// locks.
func (f *fid) unref(s *Session) {
	if f.refs.Add(-1) != 0 {
		return
	}
	if of := f.open.Load(); of != nil && of.File != nil {
		s.locks.forget(f)
		of.Close()
	}
	if f.xattr != nil {
		s.xattrBytes.Add(-f.xattr.charged)
	}
	if f.node != nil {
		f.node.Unref()
	}
}

// fidTable maps fid numbers. Its lock is held for map operations only.
type fidTable struct {
	mu  sync.Mutex
	m   map[uint32]*fid // guarded by mu
	gen uint64          // guarded by mu: Tversions so far
	// closed is guarded by mu: nothing comes in any more.
	closed bool
}

// get returns the fid with a reference.
func (t *fidTable) get(n uint32) (*fid, error) {
	t.mu.Lock()
	f := t.m[n]
	if f != nil {
		f.refs.Add(1)
	}
	t.mu.Unlock()
	if f == nil {
		return nil, unix.EBADF
	}
	return f, nil
}

// quick says whether fid number n stands for a file on one of this host's own
// filesystems and, if it is to be changed, one whose change copies nothing or, if
// it is to be written, one that is not synced then.
func (t *fidTable) quick(n uint32, change, write bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.m[n]
	switch {
	case f == nil || f.xattr != nil: // a Tclunk may set the attribute
		return false
	case f.node == nil:
		return true
	}
	if file := f.data(); write && file != nil && file.Synced() {
		return false
	}
	return f.node.Local() && !(change && f.node.CopiesUp())
}

// insert gives number n to f, whose one reference the table takes over. It
// fails if the number is in use, the table full, or a Tversion has passed since
// generation gen.
func (t *fidTable) insert(n uint32, f *fid, gen uint64, limit int) error {
	f.refs.Store(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case n == p9.NoFID || t.m[n] != nil:
		return unix.EBADF
	case len(t.m) >= limit:
		return unix.ENFILE
	case t.gen != gen, t.closed:
		return unix.EBADF
	}
	t.m[n] = f
	return nil
}

// replace lets number n stand for f if it still stands for old, whose table
// reference goes to the caller.
func (t *fidTable) replace(n uint32, old, f *fid) error {
	f.refs.Store(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[n] != old {
		return unix.EBADF
	}
	t.m[n] = f
	return nil
}

// remove takes number n out of the table; the caller gets the reference.
func (t *fidTable) remove(n uint32) (*fid, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.m[n]
	if f == nil {
		return nil, unix.EBADF
	}
	delete(t.m, n)
	return f, nil
}

// reset empties the table, for good if closed is set, and returns what was in
// it.
func (t *fidTable) reset(closed bool) map[uint32]*fid {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = t.closed || closed
	old := t.m
	t.m = make(map[uint32]*fid)
	t.gen++
	return old
}

func (t *fidTable) generation() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gen
}

// evict replaces every fid that match picks by a tombstone and returns them.
func (t *fidTable) evict(match func(*fid) bool) []*fid {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*fid
	for n, f := range t.m {
		if !match(f) {
			continue
		}
		tomb := &fid{exp: f.exp, uid: f.uid}
		tomb.refs.Store(1)
		t.m[n] = tomb
		out = append(out, f)
	}
	return out
}
