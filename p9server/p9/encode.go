package p9

import "syscall"

// QID is the server's name for a file: qid.path is unique among the files of
// a session, whatever host filesystem they come from.
type QID struct {
	Type    uint8
	Version uint32
	Path    uint64
}

// Attr is the body of Rgetattr after valid[8].
type Attr struct {
	QID       QID
	Mode      uint32
	UID, GID  uint32
	Nlink     uint64
	Rdev      uint64
	Size      uint64
	Blksize   uint64
	Blocks    uint64
	Atime     Time
	Mtime     Time
	Ctime     Time
	Btime     Time
	Gen       uint64
	DataVer   uint64
	ValidMask uint64
}

// Time is a point in time as 9P2000.L carries it.
type Time struct{ Sec, Nsec uint64 }

// Statfs is the body of Rstatfs.
type Statfs struct {
	Type, Bsize           uint32
	Blocks, Bfree, Bavail uint64
	Files, Ffree, FSID    uint64
	NameLen               uint32
}

// Reply builds an R-message in a private buffer. Begin it, append the fields
// in order, then take the bytes with Finish.
type Reply struct{ b []byte }

// Begin starts a reply of type t in the storage of buf.
func (r *Reply) Begin(buf []byte, t Type, tag uint16) {
	r.b = append(buf[:0], 0, 0, 0, 0, byte(t), byte(tag), byte(tag>>8))
}

// Finish fills in the size and returns the message.
func (r *Reply) Finish() []byte { return r.FinishWith(0) }

// FinishWith is Finish for a message of which n more bytes are elsewhere.
func (r *Reply) FinishWith(n int) []byte {
	le.PutUint32(r.b, uint32(len(r.b)+n))
	return r.b
}

// Error turns the reply into Rlerror: size[4] Rlerror tag[2] ecode[4].
func (r *Reply) Error(errno syscall.Errno) {
	r.b = append(r.b[:4], byte(TypeRlerror), r.b[5], r.b[6])
	r.b = le.AppendUint32(r.b, uint32(errno))
}

// U8, U16, U32 and U64 append an integer.
func (r *Reply) U8(v uint8)   { r.b = append(r.b, v) }
func (r *Reply) U16(v uint16) { r.b = le.AppendUint16(r.b, v) }
func (r *Reply) U32(v uint32) { r.b = le.AppendUint32(r.b, v) }
func (r *Reply) U64(v uint64) { r.b = le.AppendUint64(r.b, v) }

// Str appends a string. Strings longer than a u16 can say are cut; callers
// bound theirs well below.
func (r *Reply) Str(s []byte) {
	s = s[:min(len(s), 0xffff)]
	r.b = appendStr(r.b, s)
}

// QID appends a QID.
func (r *Reply) QID(q QID) { r.b = AppendQID(r.b, q) }

// AppendQID appends qid.type[1] qid.version[4] qid.path[8].
func AppendQID(b []byte, q QID) []byte {
	b = append(b, q.Type)
	b = le.AppendUint32(b, q.Version)
	return le.AppendUint64(b, q.Path)
}

// Attr appends the body of Rgetattr.
func (r *Reply) Attr(a *Attr) {
	r.U64(a.ValidMask)
	r.QID(a.QID)
	r.U32(a.Mode)
	r.U32(a.UID)
	r.U32(a.GID)
	for _, v := range [...]uint64{
		a.Nlink, a.Rdev, a.Size, a.Blksize, a.Blocks,
		a.Atime.Sec, a.Atime.Nsec, a.Mtime.Sec, a.Mtime.Nsec,
		a.Ctime.Sec, a.Ctime.Nsec, a.Btime.Sec, a.Btime.Nsec,
		a.Gen, a.DataVer,
	} {
		r.U64(v)
	}
}

// Statfs appends the body of Rstatfs.
func (r *Reply) Statfs(s *Statfs) {
	r.U32(s.Type)
	r.U32(s.Bsize)
	for _, v := range [...]uint64{s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree, s.FSID} {
		r.U64(v)
	}
	r.U32(s.NameLen)
}

// AppendDirent appends one entry of Rreaddir.
func AppendDirent(b []byte, q QID, offset uint64, typ uint8, name []byte) []byte {
	b = AppendQID(b, q)
	b = le.AppendUint64(b, offset)
	b = append(b, typ)
	return appendStr(b, name)
}

// SetU16 overwrites two bytes of the reply and cuts off nothing.
func (r *Reply) SetU16(at int, v uint16) { le.PutUint16(r.b[at:], v) }
