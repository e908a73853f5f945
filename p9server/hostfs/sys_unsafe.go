package hostfs

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wrappers below exist because those of x/sys allocate a string per call,
// which a walk, a getattr or a read cannot afford.

var emptyPath [1]byte

// cname copies name into z and terminates it. Precondition: len(name) < 256.
func cname(z *[256]byte, name []byte) {
	n := copy(z[:255], name)
	z[n] = 0
}

func openat(dirfd int, name []byte, flags int, mode uint32) (int, error) {
	var z [256]byte
	cname(&z, name)
	for {
		// SAFETY: z is NUL-terminated, lives on this stack until the call
		// returns and is only read by the kernel.
		fd, _, e := syscall.Syscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(&z[0])),
			uintptr(flags|unix.O_LARGEFILE), uintptr(mode), 0, 0)
		if e == 0 {
			return int(fd), nil
		}
		if e != unix.EINTR {
			return -1, e
		}
	}
}

// openat2NoXDev opens name without crossing a mount point.
func openat2NoXDev(dirfd int, name []byte, flags int) (int, error) {
	var z [256]byte
	cname(&z, name)
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	// EAGAIN means that a rename or mount raced with the look-up and the
	// kernel could not tell; it is tried again a few times only.
	var e syscall.Errno
	for range 8 {
		var fd uintptr
		// SAFETY: z is NUL-terminated, how has the size passed; both live on
		// this stack until the call returns and are only read.
		fd, _, e = syscall.Syscall6(unix.SYS_OPENAT2, uintptr(dirfd), uintptr(unsafe.Pointer(&z[0])),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		if e == 0 {
			return int(fd), nil
		}
		if e != unix.EAGAIN && e != unix.EINTR {
			break
		}
	}
	return -1, e
}

// statx fills st from the file that fd is, without a name.
func statx(fd int, st *unix.Statx_t) error {
	// SAFETY: emptyPath is a constant NUL byte; st is a live struct of the
	// kernel's layout that the call fills.
	_, _, e := syscall.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&emptyPath[0])),
		unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, uintptr(unsafe.Pointer(st)), 0)
	if e != 0 {
		return e
	}
	return nil
}

func utimens(fd int, ts *[2]unix.Timespec) error {
	// SAFETY: as in statx; ts is only read.
	_, _, e := syscall.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(&emptyPath[0])),
		uintptr(unsafe.Pointer(ts)), unix.AT_EMPTY_PATH, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// iovMax is IOV_MAX. A longer list is served in part, as a short read or
// write; virtio queues of this project hold far fewer descriptors.
const iovMax = 1024

var iovecs = sync.Pool{New: func() any { return new([iovMax]unix.Iovec) }}

// fillIovec describes the n bytes that follow the first skip bytes of bufs.
func fillIovec(v *[iovMax]unix.Iovec, bufs [][]byte, skip, n int) int {
	used := 0
	for _, b := range bufs {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b = b[skip:]
		skip = 0
		if len(b) > n {
			b = b[:n]
		}
		if len(b) == 0 || used == iovMax {
			break
		}
		v[used].Base = &b[0]
		v[used].SetLen(len(b))
		used++
		n -= len(b)
	}
	return used
}

// vectored does preadv or pwritev over a window of bufs.
func vectored(call uintptr, fd int, bufs [][]byte, skip, n int, off int64) (int, error) {
	v := iovecs.Get().(*[iovMax]unix.Iovec)
	used := fillIovec(v, bufs, skip, n)
	for {
		// SAFETY: the first used elements of v point into bufs, which the
		// caller keeps alive and whose lengths were taken from the slices
		// themselves. The memory may be a guest's: the kernel copies bytes to
		// or from it and interprets nothing.
		r, _, e := syscall.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(v)), uintptr(used),
			uintptr(off), 0, 0)
		if e == unix.EINTR {
			continue
		}
		clear(v[:used])
		iovecs.Put(v)
		if e != 0 {
			return 0, e
		}
		return int(r), nil
	}
}
