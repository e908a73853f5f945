package boot

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// A connection may be refused while the device is being probed or the host has
// not begun to listen. Both pass without an event that user space could wait
// for, so the dial is tried again, a bounded number of times.
const (
	dialTries = 100
	dialPause = 50 * time.Millisecond
)

// forever is a limit that no guest reaches and that the kernel can count in
// jiffies (net/vmw_vsock/af_vsock.c, SO_VM_SOCKETS_CONNECT_TIMEOUT).
const forever = 100 * 365 * 24 * time.Hour

// dialVsock connects to a port of the host, in at most that many tries, each of
// which may take so long; 0 is the kernel's default of 2 s. The descriptor
// blocks.
func dialVsock(port uint32, tries int, limit time.Duration) (int, error) {
	for try := 1; ; try++ {
		fd, err := connectVsock(port, limit)
		if err == nil {
			return fd, nil
		}
		retry := errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNRESET) ||
			errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EINTR)
		if !retry || try >= tries {
			return -1, err
		}
		time.Sleep(dialPause)
	}
}

// connectVsock tries once. x/sys does it in two system calls; mdlayher/vsock
// would bring package net, the poller's set-up before the hello, and getsockname.
func connectVsock(port uint32, limit time.Duration) (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if limit > 0 {
		tv := unix.NsecToTimeval(limit.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &tv); err != nil {
			_ = unix.Close(fd)
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// conn is a connection whose descriptor waits in Go's poller.
type conn struct{ *os.File }

// newConn takes a blocking descriptor.
func newConn(fd int, name string) (conn, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		_ = unix.Close(fd)
		return conn{}, os.NewSyscallError("fcntl", err)
	}
	return conn{os.NewFile(uintptr(fd), name)}, nil
}

// CloseWrite is wire.Stream's.
func (c conn) CloseWrite() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return err
	}
	return os.NewSyscallError("shutdown", serr)
}

// vsockOpener opens each stream as a connection of its own.
type vsockOpener struct{}

func (vsockOpener) Open(id uint64) (wire.Stream, error) {
	fd, err := dialVsock(wire.StreamPort, dialTries, 0)
	if err != nil {
		return nil, err
	}
	// Eight bytes fit any socket buffer, so this does not wait.
	if _, err := unix.Write(fd, wire.PutStreamID(id)); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("write", err)
	}
	return newConn(fd, "stream")
}
