package p9server

import (
	"math"
	"sync"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// Byte-range locks.
//
// The guest's kernel settles conflicts among its own processes before it asks;
// the server is there for those with the host and with other guests. Each open
// fid locks through its own host fd (F_OFD_SETLK, which never waits: "blocked"
// is an answer, and the guest tries again). That is what flock(2) wants, but
// POSIX locks belong to a process: one that has a file open twice does not
// conflict with itself (SQLite connections in one process depend on it). So the
// session records who (client_id, proc_id) locked what through which fid. If a
// lock is refused, ranges that the same owner holds through other fids are
// given up first and it is tried again; an unlock clears the owner's range on
// all fids.
//
// A host lock lives as long as its fd, so Tclunk of the last fid drops it.

type lockOwner struct {
	client string
	proc   uint32
}

// lockRec is a locked range, end included.
type lockRec struct {
	f          *fid
	owner      lockOwner
	kind       int16
	start, end int64
}

type inodeID struct{ dev, ino uint64 }

// lockTable is a session's records. Its lock is held over fcntl calls that
// do not wait for other lock holders.
type lockTable struct {
	mu  sync.Mutex
	m   map[inodeID][]lockRec // guarded by mu
	n   int                   // guarded by mu: records in m
	max int
}

func (t *lockTable) init(limit int) {
	t.m = make(map[inodeID][]lockRec)
	t.max = limit
}

// maxClientID bounds the client_id that is kept; Linux sends the hostname.
const maxClientID = 255

// lockRange turns start and length into an inclusive range.
func lockRange(start, length uint64) (int64, int64, error) {
	if start > math.MaxInt64 || length > math.MaxInt64 {
		return 0, 0, unix.EINVAL
	}
	if length == 0 {
		return int64(start), math.MaxInt64, nil
	}
	if start > math.MaxInt64-(length-1) {
		return 0, 0, unix.EOVERFLOW
	}
	return int64(start), int64(start + length - 1), nil
}

// span is the length that fcntl takes for an inclusive range.
func span(start, end int64) int64 {
	if end == math.MaxInt64 {
		return 0
	}
	return end - start + 1
}

func lockKind(t uint8) (int16, error) {
	switch t {
	case p9.LockTypeRDLCK:
		return unix.F_RDLCK, nil
	case p9.LockTypeWRLCK:
		return unix.F_WRLCK, nil
	case p9.LockTypeUNLCK:
		return unix.F_UNLCK, nil
	}
	return 0, unix.EINVAL
}

// lockFid returns a fid that can be locked, and its file.
func (s *Session) lockFid(n uint32) (*fid, *openFile, error) {
	f, err := s.fid(n)
	if err != nil {
		return nil, nil, err
	}
	of, err := f.file()
	if err == nil && (of.File == nil || of.IsDir()) {
		err = unix.EBADF
	}
	if err != nil {
		f.unref(s)
		return nil, nil, err
	}
	return f, of, nil
}

func (s *Session) lock(r *Request) error {
	var m p9.Tlock
	if err := m.Decode(r.body); err != nil {
		return err
	}
	kind, err := lockKind(m.Kind)
	if err != nil {
		return err
	}
	start, end, err := lockRange(m.Start, m.Length)
	if err != nil {
		return err
	}
	if len(m.ClientID) > maxClientID {
		return unix.ENAMETOOLONG
	}
	f, _, err := s.lockFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	rec := lockRec{
		f: f, kind: kind, start: start, end: end,
		owner: lockOwner{client: string(m.ClientID), proc: m.ProcID},
	}
	if kind == unix.F_UNLCK {
		err = s.locks.unlock(rec)
	} else {
		err = s.locks.lock(rec)
	}
	switch err {
	case nil:
		r.out.U8(p9.LockSuccess)
	case unix.EAGAIN:
		r.out.U8(p9.LockBlocked)
	default:
		return err
	}
	return nil
}

func (t *lockTable) lock(rec lockRec) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Cutting a range out of a record can make two of it, so leave room.
	if t.n+2 > t.max {
		return unix.ENOLCK
	}
	rec.f.locked.Store(true)
	id := rec.inode()
	err := rec.set(rec.kind)
	if err == unix.EAGAIN {
		freed := t.cut(id, rec, func(o *lockRec) bool { return o.f != rec.f && o.owner == rec.owner })
		if len(freed) == 0 {
			return err
		}
		for _, o := range freed {
			_ = o.set(unix.F_UNLCK)
		}
		if err = rec.set(rec.kind); err != nil {
			for _, o := range freed {
				if o.set(o.kind) == nil {
					t.add(id, o)
				}
			}
		}
	}
	if err != nil {
		return err
	}
	t.cut(id, rec, func(o *lockRec) bool { return o.f == rec.f })
	t.add(id, rec)
	return nil
}

func (t *lockTable) unlock(rec lockRec) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := rec.set(unix.F_UNLCK); err != nil {
		return err
	}
	id := rec.inode()
	t.cut(id, rec, func(o *lockRec) bool { return o.f == rec.f })
	for _, o := range t.cut(id, rec, func(o *lockRec) bool { return o.owner == rec.owner }) {
		_ = o.set(unix.F_UNLCK)
	}
	return nil
}

// forget drops the records of a fid that is about to close its file.
func (t *lockTable) forget(f *fid) {
	if !f.locked.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	whole := lockRec{f: f, start: 0, end: math.MaxInt64}
	t.cut(whole.inode(), whole, func(o *lockRec) bool { return o.f == f })
}

func (rec *lockRec) inode() inodeID {
	dev, ino := rec.f.node.ID()
	return inodeID{dev, ino}
}

func (rec *lockRec) set(kind int16) error {
	return rec.f.open.Load().Lock(kind, rec.start, span(rec.start, rec.end))
}

// add appends a record. Must hold t.mu.
func (t *lockTable) add(id inodeID, rec lockRec) {
	t.m[id] = append(t.m[id], rec)
	t.n++
}

// cut takes the range of rec out of the inode's records that match picks and
// returns the parts taken out. Must hold t.mu.
func (t *lockTable) cut(id inodeID, rec lockRec, match func(*lockRec) bool) []lockRec {
	old := t.m[id]
	if len(old) == 0 {
		return nil
	}
	var kept, out []lockRec
	for _, o := range old {
		if o.end < rec.start || o.start > rec.end || !match(&o) {
			kept = append(kept, o)
			continue
		}
		part := o
		part.start, part.end = max(o.start, rec.start), min(o.end, rec.end)
		out = append(out, part)
		if o.start < rec.start {
			left := o
			left.end = rec.start - 1
			kept = append(kept, left)
		}
		if o.end > rec.end {
			right := o
			right.start = rec.end + 1
			kept = append(kept, right)
		}
	}
	t.n += len(kept) - len(old)
	if len(kept) == 0 {
		delete(t.m, id)
	} else {
		t.m[id] = kept
	}
	return out
}

// holder finds a record other than the asker's own that overlaps a range, and
// whether one of the asker's does.
func (t *lockTable) holder(rec lockRec) (other lockRec, found, own bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.m[rec.inode()] {
		if o.end < rec.start || o.start > rec.end {
			continue
		}
		if o.owner == rec.owner {
			own = true
		} else if !found {
			other, found = o, true
		}
	}
	return other, found, own
}

// getlock answers which lock would be in the way of one that is asked for.
// Linux's client looks at the guest's own locks first and asks with type
// P9_LOCK_TYPE_UNLCK whatever it wants; the strictest question is put then.
func (s *Session) getlock(r *Request) error {
	var m p9.Tgetlock
	if err := m.Decode(r.body); err != nil {
		return err
	}
	kind, err := lockKind(m.Kind)
	if err != nil {
		return err
	}
	if kind == unix.F_UNLCK {
		kind = unix.F_WRLCK
	}
	start, end, err := lockRange(m.Start, m.Length)
	if err != nil {
		return err
	}
	f, of, err := s.lockFid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	got, gotStart, gotLen, err := of.TestLock(kind, start, span(start, end))
	if err != nil {
		return err
	}
	ask := lockRec{f: f, start: start, end: end, owner: lockOwner{string(m.ClientID), m.ProcID}}
	var who lockOwner
	if got != unix.F_UNLCK {
		other, found, own := s.locks.holder(ask)
		if found {
			who = other.owner
		} else if own {
			got = unix.F_UNLCK // the asker's own, through another fid
		}
	}
	answer := uint8(p9.LockTypeUNLCK)
	switch got {
	case unix.F_RDLCK:
		answer = p9.LockTypeRDLCK
	case unix.F_WRLCK:
		answer = p9.LockTypeWRLCK
	default:
		gotStart, gotLen = start, span(start, end)
	}
	r.out.U8(answer)
	r.out.U64(uint64(gotStart))
	r.out.U64(uint64(gotLen))
	r.out.U32(who.proc)
	r.out.Str([]byte(who.client))
	return nil
}
