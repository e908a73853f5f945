package hostfs

import (
	"math"
	"strconv"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// Stat fills a with the file's attributes, by one statx.
func (n *Node) Stat(a *p9.Attr) error {
	var st unix.Statx_t
	if err := statx(n.fd, &st); err != nil {
		return err
	}
	*a = p9.Attr{
		ValidMask: p9.StatsBasic,
		QID:       n.qid,
		Mode:      uint32(st.Mode),
		UID:       st.Uid, GID: st.Gid,
		Nlink:   uint64(st.Nlink),
		Rdev:    encodeDev(st.Rdev_major, st.Rdev_minor),
		Size:    st.Size,
		Blksize: uint64(st.Blksize),
		Blocks:  st.Blocks,
		Atime:   p9.Time{Sec: uint64(st.Atime.Sec), Nsec: uint64(st.Atime.Nsec)},
		Mtime:   p9.Time{Sec: uint64(st.Mtime.Sec), Nsec: uint64(st.Mtime.Nsec)},
		Ctime:   p9.Time{Sec: uint64(st.Ctime.Sec), Nsec: uint64(st.Ctime.Nsec)},
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.ValidMask |= p9.StatsBtime | p9.StatsGen
		a.Btime = p9.Time{Sec: uint64(st.Btime.Sec), Nsec: uint64(st.Btime.Nsec)}
		a.Gen = uint64(generation(&st))
	}
	return nil
}

// encodeDev is the kernel's new_encode_dev, which v9fs decodes st_rdev with.
func encodeDev(major, minor uint32) uint64 {
	return uint64(minor&0xff | major<<8 | minor&^0xff<<12)
}

// SetSize truncates or extends a regular file. f is the file's data fd when
// one is open for writing, else nil.
func (n *Node) SetSize(f *File, size uint64) error {
	switch {
	case n.kind == unix.S_IFDIR:
		return unix.EISDIR
	case n.kind != unix.S_IFREG, size > math.MaxInt64:
		return unix.EINVAL
	}
	if f != nil && f.writable {
		return ftruncate(f.fd, int64(size))
	}
	return n.withData(unix.O_WRONLY, func(fd int) error { return ftruncate(fd, int64(size)) })
}

func ftruncate(fd int, size int64) error {
	for {
		if err := unix.Ftruncate(fd, size); err != unix.EINTR {
			return err
		}
	}
}

// withData reopens a regular file or directory for the time of one call.
// Precondition: n.kind is one of the two.
func (n *Node) withData(flags int, do func(fd int) error) error {
	if err := n.h.acquire(); err != nil {
		return err
	}
	fd, err := n.h.reopen(n.fd, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC)
	if err != nil {
		n.h.fds.Add(-1)
		return err
	}
	defer n.h.release(fd)
	return do(fd)
}

// Chmod sets the mode bits. A symlink has none.
func (n *Node) Chmod(mode uint32) error {
	if n.kind == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return n.h.chmod(n.fd, mode)
}

// Chown sets owner and group; p9.NoUID leaves one as it is. With both left
// alone only the ctime changes.
func (n *Node) Chown(uid, gid uint32) error {
	return unix.Fchownat(n.fd, "", int(int32(uid)), int(int32(gid)), unix.AT_EMPTY_PATH)
}

// Utimes sets the times, with UTIME_NOW and UTIME_OMIT as in utimensat(2).
func (n *Node) Utimes(atime, mtime unix.Timespec) error {
	return utimens(n.fd, &[2]unix.Timespec{atime, mtime})
}

// Mode reads the permission bits.
func (n *Node) Mode() (uint32, error) {
	var st unix.Statx_t
	if err := statx(n.fd, &st); err != nil {
		return 0, err
	}
	return uint32(st.Mode) & 0o7777, nil
}

// DropsPrivs is the mode that a write or a truncation by an unprivileged user
// leaves: without set-user-ID, and without set-group-ID if the group may
// execute (else the bit means mandatory locking). changed is false if mode has
// neither.
func DropsPrivs(mode uint32) (_ uint32, changed bool) {
	out := mode &^ unix.S_ISUID
	if mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
		out &^= unix.S_ISGID
	}
	return out, out != mode
}

// linkat links the inode behind fd. Going through /proc needs no
// CAP_DAC_READ_SEARCH, which AT_EMPTY_PATH does.
func (h *Host) linkat(fd, dirfd int, name string) error {
	return unix.Linkat(h.proc, strconv.Itoa(fd), dirfd, name, unix.AT_SYMLINK_FOLLOW)
}
