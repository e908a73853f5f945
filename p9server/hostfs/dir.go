package hostfs

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// struct linux_dirent64: d_ino[8] d_off[8] d_reclen[2] d_type[1] d_name.
const (
	direntOff  = 8
	direntLen  = 16
	direntType = 18
	direntName = 19
	// direntMax is the longest record: NAME_MAX bytes and a NUL, padded.
	direntMax = 280
)

// Readdir appends whole Rreaddir entries from position off on to out, no more
// than limit bytes. The positions are the host's own d_off cookies, so that
// rewinddir, seekdir and a listing during which entries vanish behave as they
// do on the host. scratch receives the host's records.
//
// An empty result means the end of the directory.
func (f *File) Readdir(n *Node, out []byte, limit int, off uint64, scratch []byte) ([]byte, error) {
	if !f.dir {
		return out, unix.ENOTDIR
	}
	if off > math.MaxInt64 {
		return out, unix.EINVAL
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if int64(off) != f.pos {
		if _, err := unix.Seek(f.fd, int64(off), unix.SEEK_SET); err != nil {
			return out, err
		}
		f.pos = int64(off)
	}
	// A 9P entry is at most 7/6 of the host's record (names of 4 bytes: 28 to
	// 24), so what this much room returns always fits. Less room than one
	// record needs is rounded up and may leave entries over.
	want := min(max(limit/7*6, direntMax), len(scratch))
	got, err := getdents(f.fd, scratch[:want])
	if err != nil || got == 0 {
		return out, err
	}
	start := len(out)
	out = f.convert(n, out, start+limit, scratch[:got])
	if len(out) == start {
		return out, unix.EINVAL // not even one entry fits
	}
	return out, nil
}

func getdents(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Getdents(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// convert appends entries until the records end or end bytes are reached.
// f.pos becomes the position after the last entry, so that the next call seeks
// only if entries were left over.
//
// Must hold f.mu.
func (f *File) convert(n *Node, out []byte, end int, recs []byte) []byte {
	next := f.pos
	for len(recs) >= direntName {
		reclen := int(binary.LittleEndian.Uint16(recs[direntLen:]))
		if reclen <= direntName || reclen > len(recs) {
			break // the kernel does not do this
		}
		rec := recs[:reclen]
		recs = recs[reclen:]
		off := int64(binary.LittleEndian.Uint64(rec[direntOff:]))
		name := rec[direntName:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if len(out)+p9.DirentHeaderSize+len(name) > end {
			// The host's stream stands past this entry: force a seek.
			f.pos = -1
			return out
		}
		ino := binary.LittleEndian.Uint64(rec)
		if n.root && string(name) == ".." {
			ino = n.ino // what is above an export is nobody's business
		}
		q := p9.QID{Version: 1, Path: n.h.ids.path(n.dev, ino), Type: direntQIDType(rec[direntType])}
		out = p9.AppendDirent(out, q, uint64(off), rec[direntType], name)
		next = off
	}
	f.pos = next
	return out
}

func direntQIDType(t byte) uint8 {
	switch t {
	case unix.DT_DIR:
		return p9.QTDir
	case unix.DT_LNK:
		return p9.QTSymlink
	}
	return p9.QTFile
}
