package hostfs

import (
	"sync"
	"sync/atomic"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// A QID's path must differ for every file of the session, but inode numbers
// are unique within one host filesystem only. So the path is 16 bits that
// stand for (device, upper 16 bits of the inode number) followed by the lower
// 48 bits of the inode number. The 16 bits are handed out in order of
// appearance and never change, which keeps st_ino in the guest stable; nearly
// always a filesystem needs one of them. A filesystem with random 64-bit inode
// numbers (NFS, overlay with xino) can use them up: files beyond get prefix
// 0xffff and a 48-bit hash, unique with overwhelming probability.
//
// The table has at most 65,535 entries, whatever the guest does.
const (
	inoBits      = 48
	inoMask      = 1<<inoBits - 1
	hashedPrefix = 0xffff
)

type qidKey struct {
	dev uint64
	hi  uint16
}

type qidMap struct {
	mu sync.RWMutex
	m  map[qidKey]uint16 // guarded by mu
	// last is the entry used last: most look-ups need no lock.
	last atomic.Pointer[qidEntry]
}

type qidEntry struct {
	key    qidKey
	prefix uint16
}

func (q *qidMap) init() { q.m = make(map[qidKey]uint16) }

func (q *qidMap) path(dev, ino uint64) uint64 {
	key := qidKey{dev: dev, hi: uint16(ino >> inoBits)}
	if e := q.last.Load(); e != nil && e.key == key {
		return uint64(e.prefix)<<inoBits | ino&inoMask
	}
	q.mu.RLock()
	prefix, ok := q.m[key]
	q.mu.RUnlock()
	if !ok {
		if prefix, ok = q.add(key); !ok {
			return hashedPrefix<<inoBits | mix(dev, ino)&inoMask
		}
	}
	q.last.Store(&qidEntry{key: key, prefix: prefix})
	return uint64(prefix)<<inoBits | ino&inoMask
}

func (q *qidMap) add(key qidKey) (uint16, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if prefix, ok := q.m[key]; ok {
		return prefix, true
	}
	if len(q.m) >= hashedPrefix {
		return 0, false
	}
	prefix := uint16(len(q.m))
	q.m[key] = prefix
	return prefix, true
}

// mix is splitmix64 over both numbers.
func mix(dev, ino uint64) uint64 {
	x := ino + dev*0x9e3779b97f4a7c15 + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func statDev(st *unix.Statx_t) uint64 {
	return uint64(st.Dev_major)<<32 | uint64(st.Dev_minor)
}

// generation tells two files apart that had the same inode number one after
// the other. The time of birth does that without the ioctl that the real
// generation number would need.
func generation(st *unix.Statx_t) uint32 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return uint32(mix(uint64(st.Btime.Sec), uint64(st.Btime.Nsec)))
}

// qid makes the QID of a file.
//
// The version is constant for the life of a file, and never 0. Linux's client
// takes 0 as "never cache" (P9L_DIRECT), which would make shared writable
// mappings fail, and it matches cached inodes by version: one that changed with
// every write would give two inodes, with two page caches, to two names of one
// open file. No cache mode that we mount with uses it to notice changes.
func (h *Host) qid(st *unix.Statx_t) p9.QID {
	q := p9.QID{
		Version: generation(st) | 1,
		Path:    h.ids.path(statDev(st), st.Ino),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		q.Type = p9.QTDir
	case unix.S_IFLNK:
		q.Type = p9.QTSymlink
	}
	return q
}
