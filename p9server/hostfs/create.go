package hostfs

import (
	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// Owner is whom a new file belongs to. p9.NoUID in either field leaves that
// field as the host's kernel set it.
type Owner struct{ UID, GID uint32 }

const suidBits = unix.S_ISUID | unix.S_ISGID

// Create makes and opens a regular file, as open(2) with O_CREAT. An entry
// that exists is opened unless p9.OpenEXCL is given; it is looked at before, so
// that a FIFO or device in its place is never opened.
func (n *Node) Create(name []byte, flags, mode uint32, own Owner, walk WalkOptions, opt OpenOptions) (*Node, *File, error) {
	if n.kind != unix.S_IFDIR {
		return nil, nil, unix.ENOTDIR
	}
	for range 8 {
		node, file, err := n.createExcl(name, flags, mode, own, opt)
		if err != unix.EEXIST || flags&p9.OpenEXCL != 0 {
			return node, file, err
		}
		node, err = n.lookup(name, walk)
		if err == unix.ENOENT {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, nil, err
		}
		if node.kind == unix.S_IFDIR {
			err = unix.EISDIR
		} else {
			file, err = node.Open(flags, opt)
		}
		if err != nil {
			node.Unref()
			return nil, nil, err
		}
		return node, file, nil
	}
	return nil, nil, unix.EAGAIN
}

func (n *Node) createExcl(name []byte, flags, mode uint32, own Owner, opt OpenOptions) (*Node, *File, error) {
	if err := n.h.acquire(); err != nil {
		return nil, nil, err
	}
	hostFlags := openFlags(flags, opt)&^unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	fd, err := openat(n.fd, name, hostFlags, mode&0o777)
	if err != nil {
		n.h.fds.Add(-1)
		return nil, nil, err
	}
	node, err := n.nodeOf(fd)
	if err == nil {
		err = n.settle(node, mode, own)
		if err != nil {
			node.Unref()
		}
	}
	if err != nil {
		n.h.release(fd)
		_ = unix.Unlinkat(n.fd, string(name), 0)
		return nil, nil, err
	}
	return node, &File{h: n.h, fd: fd, writable: flags&p9.OpenAccMode != p9.OpenRDONLY, synced: synced(hostFlags)}, nil
}

// nodeOf makes a Node of an open fd's inode.
func (n *Node) nodeOf(fd int) (*Node, error) {
	if err := n.h.acquire(); err != nil {
		return nil, err
	}
	pfd, err := n.h.reopen(fd, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		n.h.fds.Add(-1)
		return nil, err
	}
	var st unix.Statx_t
	if err := statx(pfd, &st); err != nil {
		n.h.release(pfd)
		return nil, err
	}
	return n.h.newNode(pfd, &st, n), nil
}

// Mkdir makes a directory.
func (n *Node) Mkdir(name []byte, mode uint32, own Owner) (*Node, error) {
	if n.kind != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	if err := unix.Mkdirat(n.fd, string(name), mode&0o1777); err != nil {
		return nil, err
	}
	return n.made(name, unix.S_IFDIR, mode, own)
}

// Mknod makes a regular file, FIFO, socket or device node; which of them the
// guest may have is for the caller to say. Nothing is opened.
func (n *Node) Mknod(name []byte, mode uint32, dev uint64, own Owner) (*Node, error) {
	if n.kind != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	kind := mode & unix.S_IFMT
	if err := unix.Mknodat(n.fd, string(name), kind|mode&0o777, int(dev)); err != nil {
		return nil, err
	}
	return n.made(name, kind, mode, own)
}

// Symlink makes a symlink. The target is the guest's business: the host
// stores it and never follows it.
func (n *Node) Symlink(name, target []byte, own Owner) (*Node, error) {
	if n.kind != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	if err := unix.Symlinkat(string(target), n.fd, string(name)); err != nil {
		return nil, err
	}
	return n.made(name, unix.S_IFLNK, 0o777, own)
}

// Link gives the inode to a further name in the directory n.
func (n *Node) Link(name []byte, target *Node) error {
	if n.kind != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if target.kind == unix.S_IFDIR {
		return unix.EPERM
	}
	return n.h.linkat(target.fd, n.fd, string(name))
}

// made looks up what was made under name and settles its owner and mode.
// Between the making and the look-up somebody else may have put another entry
// there; one of another type is not touched.
func (n *Node) made(name []byte, kind, mode uint32, own Owner) (*Node, error) {
	child, err := n.lookup(name, WalkOptions{})
	if err != nil {
		return nil, err
	}
	if child.kind != kind {
		child.Unref()
		return nil, unix.ESTALE
	}
	if err := n.settle(child, mode, own); err != nil {
		child.Unref()
		flags := 0
		if kind == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
		}
		_ = unix.Unlinkat(n.fd, string(name), flags)
		return nil, err
	}
	return child, nil
}

// settle gives the new file child of the directory n the owner and mode that
// were asked for. It makes a system call only for what differs, which for a
// guest's root and a umask of 0 is nothing.
//
// In a set-group-ID directory the group is the directory's, and directories
// inherit the bit (POSIX leaves it open; Linux does so). A file keeps its own
// set-group-ID bit there only if its maker's group is the directory's, else
// anybody could make files that run with that group (CVE-2022-0358).
func (n *Node) settle(child *Node, mode uint32, own Owner) error {
	var st unix.Statx_t
	if err := statx(child.fd, &st); err != nil {
		return err
	}
	uid, gid := own.UID, own.GID
	if uid == p9.NoUID {
		uid = st.Uid
	}
	if gid == p9.NoUID {
		gid = st.Gid
	}
	if gid != st.Gid {
		var dir unix.Statx_t
		if err := statx(n.fd, &dir); err != nil {
			return err
		}
		if dir.Mode&unix.S_ISGID != 0 {
			gid = st.Gid
			if child.kind == unix.S_IFREG && uid != 0 && mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
				mode &^= unix.S_ISGID
			}
		}
	}
	if child.kind == unix.S_IFDIR {
		mode |= uint32(st.Mode) & unix.S_ISGID
	}
	chowned := uid != st.Uid || gid != st.Gid
	if chowned {
		if err := unix.Fchownat(child.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if child.kind == unix.S_IFLNK {
		return nil
	}
	if (uint32(st.Mode)^mode)&0o7777 != 0 || chowned && mode&suidBits != 0 {
		return n.h.chmod(child.fd, mode)
	}
	return nil
}
