package hostfs

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Config is what a Host needs to know.
type Config struct {
	// MaxFDs bounds the fds that all Nodes and Files hold together. Zero means
	// three quarters of RLIMIT_NOFILE.
	MaxFDs int
}

// Host owns what all Nodes share: the fd of /proc/self/fd, the fd budget and
// the QIDs.
type Host struct {
	proc   int
	maxFDs int64
	fds    atomic.Int64
	ids    qidMap
}

// New opens /proc/self/fd, through which data fds are reopened from then on,
// wherever the process's root is moved to afterwards.
func New(cfg Config) (*Host, error) {
	proc, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hostfs: open /proc/self/fd: %w", os.NewSyscallError("open", err))
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(proc, &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		unix.Close(proc)
		return nil, fmt.Errorf("hostfs: /proc/self/fd is not procfs")
	}
	limit := int64(cfg.MaxFDs)
	if limit <= 0 {
		var rl unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
			unix.Close(proc)
			return nil, fmt.Errorf("hostfs: %w", os.NewSyscallError("getrlimit", err))
		}
		limit = int64(min(rl.Cur, 1<<20)) / 4 * 3
	}
	h := &Host{proc: proc, maxFDs: limit}
	h.ids.init()
	return h, nil
}

// Close gives up the Host's own fd. Nodes and Files must be gone by then.
func (h *Host) Close() error { return unix.Close(h.proc) }

// FDs is the number of fds that Nodes and Files hold at the moment.
func (h *Host) FDs() int { return int(h.fds.Load()) }

// acquire takes one fd from the budget.
func (h *Host) acquire() error {
	if h.fds.Add(1) > h.maxFDs {
		h.fds.Add(-1)
		return unix.EMFILE
	}
	return nil
}

func (h *Host) release(fd int) {
	unix.Close(fd)
	h.fds.Add(-1)
}

// reopen makes a data fd of the inode behind fd. The link in /proc leads to
// the inode itself, so nothing is looked up again.
func (h *Host) reopen(fd, flags int) (int, error) {
	var name [20]byte
	return openat(h.proc, strconv.AppendInt(name[:0], int64(fd), 10), flags, 0)
}

// chmod changes the mode of the inode behind fd, which may be O_PATH.
func (h *Host) chmod(fd int, mode uint32) error {
	return unix.Fchmodat(h.proc, strconv.Itoa(fd), mode&0o7777, 0)
}

// OpenRoot opens the root of an export. The operator names it, so symlinks
// in path are followed; from there on none ever is.
func (h *Host) OpenRoot(path string) (*Node, error) {
	if err := h.acquire(); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		h.fds.Add(-1)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return h.adoptRoot(fd)
}

// OpenRootFD makes a root of a duplicate of fd.
func (h *Host) OpenRootFD(fd int) (*Node, error) {
	if err := h.acquire(); err != nil {
		return nil, err
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		h.fds.Add(-1)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return h.adoptRoot(dup)
}

func (h *Host) adoptRoot(fd int) (*Node, error) {
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		h.release(fd)
		return nil, os.NewSyscallError("statx", err)
	}
	n := h.newNode(fd, &st, nil)
	n.root = true
	return n, nil
}
