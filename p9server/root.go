package p9server

import (
	"cmp"
	"slices"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// The synthetic root is a read-only directory whose entries are the exports.
// It exists in no host filesystem. Positions in its listing are the slots of
// the exports, which are never used twice, so exports may come and go while it
// is listed.
const (
	slotDot    = 1
	slotDotDot = 2
	firstSlot  = 3

	rootPath = 0xffff_ffff_ffff_fff0 // no host file's QID path
	// v9fsMagic is V9FS_MAGIC, the f_type of a 9P mount.
	v9fsMagic = 0x01021997
)

func (s *Session) rootQID() p9.QID {
	return p9.QID{Type: p9.QTDir, Version: 1, Path: rootPath}
}

func (s *Session) rootAttr(a *p9.Attr) {
	*a = p9.Attr{
		ValidMask: p9.StatsBasic,
		QID:       s.rootQID(),
		Mode:      unix.S_IFDIR | 0o555,
		Nlink:     2,
		Blksize:   4096,
	}
}

func rootStatfs(out *p9.Statfs) {
	*out = p9.Statfs{Type: v9fsMagic, Bsize: 4096, NameLen: p9.MaxName}
}

// readRoot appends entries after position off, no more than limit bytes.
func (s *Session) readRoot(out []byte, limit int, off uint64) ([]byte, error) {
	type entry struct {
		slot uint64
		name string
		qid  p9.QID
		typ  uint8
	}
	entries := []entry{
		{slotDot, ".", s.rootQID(), unix.DT_DIR},
		{slotDotDot, "..", s.rootQID(), unix.DT_DIR},
	}
	s.srv.mu.RLock()
	for name, e := range s.srv.exports {
		entries = append(entries, entry{e.slot, name, e.root.QID(), uint8(e.root.Kind() >> 12)})
	}
	s.srv.mu.RUnlock()
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.slot, b.slot) })
	start := len(out)
	for _, e := range entries {
		if e.slot <= off {
			continue
		}
		if len(out)-start+p9.DirentHeaderSize+len(e.name) > limit {
			if len(out) == start {
				return out, unix.EINVAL
			}
			break
		}
		out = p9.AppendDirent(out, e.qid, e.slot, e.typ, []byte(e.name))
	}
	return out, nil
}
