package container

import (
	"errors"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// rootDir is the top of a container's root file system while the container is
// made. Every path of the image is walked by the kernel with RESOLVE_IN_ROOT:
// symbolic links and .. stay inside, and the result is a descriptor, so
// nothing can be exchanged between the check and the use (runc CVE-2019-16884,
// CVE-2021-30465, CVE-2025-31133).
type rootDir int

// open returns an O_PATH descriptor of name, with further resolve flags.
func (r rootDir) open(name string, flags, resolve uint64) (int, error) {
	for {
		fd, err := unix.Openat2(int(r), name, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
		})
		// EAGAIN: a rename elsewhere raced with a .. of this walk.
		if err != unix.EINTR && err != unix.EAGAIN {
			if err != nil {
				return -1, &os.PathError{Op: "open", Path: name, Err: err}
			}
			return fd, nil
		}
	}
}

// directory opens the directory name, which it makes if it is missing, with
// its parents.
func (r rootDir) directory(name string, resolve uint64) (int, error) {
	fd, err := r.open(name, unix.O_DIRECTORY, resolve)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := r.make(name, func(parent int, base string) error {
		return unix.Mkdirat(parent, base, 0o755)
	}); err != nil {
		return -1, err
	}
	return r.open(name, unix.O_DIRECTORY, resolve)
}

// file opens name, which it makes as an empty file if it is missing.
func (r rootDir) file(name string) (int, error) {
	fd, err := r.open(name, 0, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := r.make(name, func(parent int, base string) error {
		fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}); err != nil {
		return -1, err
	}
	return r.open(name, 0, 0)
}

// make calls create in the parent of name, which it makes if it is missing. A
// base that exists is no error here; the caller opens it again anyway.
func (r rootDir) make(name string, create func(parent int, base string) error) error {
	name = path.Clean("/" + name)
	parent, err := r.directory(path.Dir(name), 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	if err := create(parent, path.Base(name)); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "create", Path: name, Err: err}
	}
	return nil
}

// fdPath is a path that leads to where the descriptor is, for calls that take
// no descriptor. It needs the agent's own /proc, so it is good until the pivot.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// isDir reports whether fd is a directory.
func isDir(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}
