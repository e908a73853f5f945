package hostfs

import (
	"bytes"
	"strconv"
	"sync/atomic"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// Node is one file of an export, by fd. Several fids may share it.
type Node struct {
	h    *Host
	fd   int
	kind uint32 // S_IFMT bits; an inode never changes them
	qid  p9.QID
	dev  uint64
	ino  uint64
	root bool // of an export
	refs atomic.Int32

	fs filesystem
}

// newNode makes a node of an O_PATH fd. The directory that it was found in, if
// any, spares it a system call.
func (h *Host) newNode(fd int, st *unix.Statx_t, dir *Node) *Node {
	n := &Node{
		h: h, fd: fd, kind: uint32(st.Mode) & unix.S_IFMT, qid: h.qid(st),
		dev: statDev(st), ino: st.Ino,
	}
	if dir != nil && dir.dev == n.dev {
		n.fs = dir.fs
	} else {
		n.fs = filesystemOf(fd)
	}
	n.refs.Store(1)
	return n
}

// Ref adds a reference. Precondition: the caller holds one.
func (n *Node) Ref() *Node {
	n.refs.Add(1)
	return n
}

// Unref drops a reference; the last one closes the fd.
func (n *Node) Unref() {
	if n.refs.Add(-1) == 0 {
		n.h.release(n.fd)
	}
}

// Kind is the file type: unix.S_IFREG, unix.S_IFDIR and so on.
func (n *Node) Kind() uint32 { return n.kind }

// QID is the file's QID.
func (n *Node) QID() p9.QID { return n.qid }

// ID identifies the inode on this host.
func (n *Node) ID() (dev, ino uint64) { return n.dev, n.ino }

// Local says whether the file is on a filesystem of this host's own disks or
// memory, as far as they are known: no other host and no program answers for it.
func (n *Node) Local() bool { return n.fs != fsOther }

// CopiesUp says whether the first change of the file may copy the whole of it
// (overlayfs).
func (n *Node) CopiesUp() bool { return n.fs == fsOverlay }

// filesystem is what is known of where a file is.
type filesystem uint8

const (
	fsOther filesystem = iota
	fsLocal
	fsOverlay
)

func filesystemOf(fd int) filesystem {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return fsOther
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, zfsMagic,
		unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.SQUASHFS_MAGIC,
		unix.MSDOS_SUPER_MAGIC, unix.ISOFS_SUPER_MAGIC:
		return fsLocal
	case unix.OVERLAYFS_SUPER_MAGIC:
		return fsOverlay
	}
	return fsOther
}

// zfsMagic is ZFS_SUPER_MAGIC of OpenZFS; Linux's headers do not have it.
const zfsMagic = 0x2fc12fc1

// WalkOptions restrict a walk.
type WalkOptions struct {
	// NoXDev refuses to enter another mount.
	NoXDev bool
}

// Walk opens the entry name of the directory n: one openat, one statx.
// A symlink is opened itself, not followed. In a directory that was removed the
// error is ESTALE, not ENOENT: there may be another one of its name.
func (n *Node) Walk(name []byte, opt WalkOptions) (*Node, error) {
	if n.kind != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	to, err := n.lookup(name, opt)
	if err == unix.ENOENT && n.removed() {
		return nil, unix.ESTALE
	}
	return to, err
}

// deleted is what the kernel puts behind the path of a file that has none (proc(5), /proc/PID/fd).
const deleted = " (deleted)"

// removed says whether nothing names the directory any more. Where the answer is not known, it is no.
func (n *Node) removed() bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	switch {
	case unix.Fstat(n.fd, &st) != nil:
		return false
	case st.Nlink == 0:
		return true
	case unix.Fstatfs(n.fd, &fs) != nil || fs.Type != unix.OVERLAYFS_SUPER_MAGIC:
		return false
	}
	// The number of links there is the lower layer's, or 1.
	var path [unix.PathMax]byte
	k, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(n.fd), path[:])
	if err != nil || !bytes.HasSuffix(path[:k], []byte(deleted)) {
		return false
	}
	var there unix.Stat_t // one that is called so
	return unix.Lstat(string(path[:k]), &there) != nil
}

func (n *Node) lookup(name []byte, opt WalkOptions) (*Node, error) {
	if err := n.h.acquire(); err != nil {
		return nil, err
	}
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	var fd int
	var err error
	if opt.NoXDev {
		fd, err = openat2NoXDev(n.fd, name, flags)
	} else {
		fd, err = openat(n.fd, name, flags, 0)
	}
	if err != nil {
		n.h.fds.Add(-1)
		return nil, err
	}
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		n.h.release(fd)
		return nil, err
	}
	return n.h.newNode(fd, &st, n), nil
}

// Readlink reads a symlink's target into buf.
func (n *Node) Readlink(buf []byte) (int, error) {
	if n.kind != unix.S_IFLNK {
		return 0, unix.EINVAL
	}
	return unix.Readlinkat(n.fd, "", buf)
}

// Statfs describes the filesystem that the file is on.
func (n *Node) Statfs(out *p9.Statfs) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(n.fd, &st); err != nil {
		return err
	}
	*out = p9.Statfs{
		Type: uint32(st.Type), Bsize: uint32(st.Bsize),
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail,
		Files: st.Files, Ffree: st.Ffree,
		FSID:    uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32,
		NameLen: uint32(st.Namelen),
	}
	return nil
}

// Unlink removes the entry name of the directory n.
func (n *Node) Unlink(name []byte, dir bool) error {
	if n.kind != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(n.fd, string(name), flags)
}

// Rename moves the entry oldName of n to newName of to.
func (n *Node) Rename(oldName []byte, to *Node, newName []byte) error {
	if n.kind != unix.S_IFDIR || to.kind != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return unix.Renameat(n.fd, string(oldName), to.fd, string(newName))
}
