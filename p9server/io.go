package p9server

import (
	"sync"

	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

func (s *Session) lopen(r *Request) error {
	var m p9.Tlopen
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	if f.xattr != nil {
		return unix.EBADF
	}
	if hostfs.Writes(m.Flags) {
		if err := f.mutable(); err != nil {
			return err
		}
	}
	// Once only: a second Tlopen, or one at the same time, is the guest's
	// error.
	if !f.opening.CompareAndSwap(false, true) {
		return unix.EBADF
	}
	of := new(openFile)
	if f.node != nil {
		of.File, err = f.node.Open(m.Flags, f.exp.openOptions())
		if err != nil {
			f.opening.Store(false)
			return err
		}
	}
	if m.Flags&p9.OpenTRUNC != 0 {
		err = s.strip(f, of)
	}
	f.open.Store(of)
	if err != nil {
		return err
	}
	r.out.QID(f.qid(s))
	r.out.U32(0) // iounit: the client derives it from msize
	return nil
}

// strip clears set-user-ID bits before an unprivileged user changes a file.
// The host does not do it for us, who are privileged (CVE-2023-1386). The
// guest's root keeps them, as CAP_FSETID would.
func (s *Session) strip(f *fid, of *openFile) error {
	if f.uid == 0 || f.node == nil || f.node.Kind() != unix.S_IFREG {
		return nil
	}
	epoch := s.srv.suidEpoch.Load() + 1
	if of != nil && of.cleanAt.Load() == epoch {
		return nil
	}
	mode, err := f.node.Mode()
	if err != nil {
		return err
	}
	if clean, changed := hostfs.DropsPrivs(mode); changed {
		if err := f.node.Chmod(clean); err != nil {
			return err
		}
	}
	if of != nil {
		of.cleanAt.Store(epoch)
	}
	return nil
}

// gaveSuid is called after a file got the mode bits in mode.
func (s *Session) gaveSuid(mode uint32) {
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		s.srv.suidEpoch.Add(1)
	}
}

// read answers Tread: size[4] Rread tag[2] count[4] data[count], the data
// straight from the file.
func (s *Session) read(r *Request, bufs [][]byte) (int, error) {
	var m p9.Tread
	if err := m.Decode(r.body); err != nil {
		return 0, err
	}
	f, err := s.fid(m.FID)
	if err != nil {
		return 0, err
	}
	defer f.unref(s)
	n := s.dataRoom(m.Count, r.room)
	if f.xattr != nil {
		n, err = f.xattr.read(bufs, n, m.Offset)
	} else {
		n, err = s.readFile(f, bufs, n, m.Offset)
	}
	if err != nil {
		return 0, err
	}
	return r.finishData(bufs, n), nil
}

func (s *Session) readFile(f *fid, bufs [][]byte, n int, off uint64) (int, error) {
	of, err := f.file()
	if err != nil {
		return 0, err
	}
	if of.File == nil {
		return 0, unix.EISDIR
	}
	return of.ReadAt(bufs, p9.ReadHeaderSize, n, off)
}

// dataRoom is how much data Rread or Rreaddir may carry.
func (s *Session) dataRoom(count uint32, room uint64) int {
	return int(min(uint64(count), room-p9.ReadHeaderSize, uint64(s.msize.Load())-p9.ReadHeaderSize))
}

// finishData writes the head of an Rread or Rreaddir whose n bytes of data are
// in place.
func (r *Request) finishData(bufs [][]byte, n int) int {
	r.out.U32(uint32(n))
	scatter(bufs, 0, r.out.FinishWith(n))
	return p9.ReadHeaderSize + n
}

// write answers Twrite; the data goes straight to the file.
func (s *Session) write(r *Request) error {
	var m p9.Twrite
	if err := m.Decode(r.body); err != nil {
		return err
	}
	if uint64(m.Count)+p9.WriteHeaderSize != uint64(r.hdr.Size) {
		return unix.EINVAL
	}
	f, err := s.fid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	var n int
	if f.xattr != nil {
		n, err = f.xattr.write(r.req, int(m.Count), m.Offset)
	} else {
		n, err = s.writeFile(f, r.req, int(m.Count), m.Offset)
	}
	if err != nil {
		return err
	}
	r.out.U32(uint32(n))
	return nil
}

func (s *Session) writeFile(f *fid, req [][]byte, n int, off uint64) (int, error) {
	of, err := f.file()
	if err != nil {
		return 0, err
	}
	if of.File == nil || !of.Writable() {
		return 0, unix.EBADF
	}
	if err := s.strip(f, of); err != nil {
		return 0, err
	}
	return of.WriteAt(req, p9.WriteHeaderSize, n, off)
}

// dirBuf is the room for one Treaddir: the host's records and our entries.
// Larger requests are answered in part, which a client expects.
type dirBuf struct{ recs, entries [64 << 10]byte }

var dirBufs = sync.Pool{New: func() any { return new(dirBuf) }}

func (s *Session) readdir(r *Request, bufs [][]byte) (int, error) {
	var m p9.Treaddir
	if err := m.Decode(r.body); err != nil {
		return 0, err
	}
	f, err := s.fid(m.FID)
	if err != nil {
		return 0, err
	}
	defer f.unref(s)
	of, err := f.file()
	if err != nil {
		return 0, err
	}
	buf := dirBufs.Get().(*dirBuf)
	defer dirBufs.Put(buf)
	n := min(s.dataRoom(m.Count, r.room), len(buf.entries))
	var out []byte
	if of.File == nil {
		out, err = s.readRoot(buf.entries[:0], n, m.Offset)
	} else {
		out, err = of.Readdir(f.node, buf.entries[:0], n, m.Offset, buf.recs[:])
	}
	if err != nil {
		return 0, err
	}
	scatter(bufs, p9.ReadHeaderSize, out)
	return r.finishData(bufs, len(out)), nil
}

func (s *Session) fsync(r *Request) error {
	var m p9.Tfsync
	if err := m.Decode(r.body); err != nil {
		return err
	}
	f, err := s.fid(m.FID)
	if err != nil {
		return err
	}
	defer f.unref(s)
	of, err := f.file()
	if err != nil || of.File == nil {
		return err
	}
	return of.Sync(m.DataSync != 0)
}
