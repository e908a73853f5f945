package hostfs

import (
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/p9server/p9"
)

// File is an open regular file or directory.
type File struct {
	h        *Host
	fd       int
	dir      bool
	writable bool
	synced   bool

	mu  sync.Mutex
	pos int64 // guarded by mu: where the host's directory stream stands
}

// openFlags translates the flags of Tlopen and Tlcreate that concern an open
// file. O_DIRECT is dropped, for guest buffers need not be aligned. O_NONBLOCK
// matters only if a lease is held on the file: then the open fails and does not
// wait.
func openFlags(flags uint32, opt OpenOptions) int {
	out := unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	switch flags & p9.OpenAccMode {
	case p9.OpenWRONLY:
		out |= unix.O_WRONLY
	case p9.OpenRDWR, p9.OpenAccMode:
		out |= unix.O_RDWR
	}
	if flags&p9.OpenTRUNC != 0 {
		out |= unix.O_TRUNC
	}
	if flags&p9.OpenAPPEND != 0 && opt.Append {
		out |= unix.O_APPEND
	}
	if flags&p9.OpenDSYNC != 0 {
		out |= unix.O_DSYNC
	}
	if flags&p9.OpenSYNC == p9.OpenSYNC {
		out |= unix.O_SYNC
	}
	return out
}

// OpenOptions are an export's choices about open files.
type OpenOptions struct {
	// Append keeps O_APPEND on the host's fd: every write goes to the end,
	// whatever its offset.
	Append bool
}

// Writes says whether an open with these flags could change the file.
func Writes(flags uint32) bool {
	return flags&p9.OpenAccMode != p9.OpenRDONLY || flags&p9.OpenTRUNC != 0
}

// Open reopens the node for data. Only regular files and directories are
// ever opened.
func (n *Node) Open(flags uint32, opt OpenOptions) (*File, error) {
	var hostFlags int
	switch n.kind {
	case unix.S_IFREG:
		if flags&p9.OpenDIRECTORY != 0 {
			return nil, unix.ENOTDIR
		}
		hostFlags = openFlags(flags, opt)
	case unix.S_IFDIR:
		if Writes(flags) {
			return nil, unix.EISDIR
		}
		hostFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK | unix.O_CLOEXEC
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	default:
		// What open(2) says of a socket, and of a FIFO or device that
		// nobody serves.
		return nil, unix.ENXIO
	}
	if err := n.h.acquire(); err != nil {
		return nil, err
	}
	fd, err := n.h.reopen(n.fd, hostFlags)
	if err != nil {
		n.h.fds.Add(-1)
		return nil, err
	}
	return &File{
		h: n.h, fd: fd, dir: n.kind == unix.S_IFDIR,
		writable: flags&p9.OpenAccMode != p9.OpenRDONLY, synced: synced(hostFlags),
	}, nil
}

// Close gives up the file. Precondition: nobody uses it any more.
func (f *File) Close() { f.h.release(f.fd) }

// IsDir says whether f is a directory.
func (f *File) IsDir() bool { return f.dir }

// Writable says whether f was opened for writing.
func (f *File) Writable() bool { return f.writable }

// Synced says whether each write waits for the disk.
func (f *File) Synced() bool { return f.synced }

// synced: O_SYNC has the bit of O_DSYNC (open(2)).
func synced(hostFlags int) bool { return hostFlags&unix.O_DSYNC != 0 }

// ReadAt reads up to n bytes at off into bufs, after its first skip bytes.
func (f *File) ReadAt(bufs [][]byte, skip, n int, off uint64) (int, error) {
	if f.dir {
		return 0, unix.EISDIR
	}
	if off > math.MaxInt64 {
		return 0, unix.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	return vectored(unix.SYS_PREADV, f.fd, bufs, skip, n, int64(off))
}

// WriteAt writes n bytes of bufs, after its first skip bytes, at off.
func (f *File) WriteAt(bufs [][]byte, skip, n int, off uint64) (int, error) {
	if f.dir {
		return 0, unix.EISDIR
	}
	if off > math.MaxInt64 {
		return 0, unix.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	return vectored(unix.SYS_PWRITEV, f.fd, bufs, skip, n, int64(off))
}

// Sync flushes the file to stable storage.
func (f *File) Sync(dataOnly bool) error {
	for {
		var err error
		if dataOnly {
			err = unix.Fdatasync(f.fd)
		} else {
			err = unix.Fsync(f.fd)
		}
		if err != unix.EINTR {
			return err
		}
	}
}
