package eventfd

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FD is one eventfd in counter mode.
type FD struct {
	file *os.File
	conn syscall.RawConn
	fd   int
	add  func(fd uintptr) // made once, so that Signal does not allocate
}

// New makes an eventfd with a count of zero.
func New() (*FD, error) {
	// Non-blocking makes os.NewFile hand it to the poller, and keeps Signal from
	// blocking when the counter is full.
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd2", err)
	}
	file := os.NewFile(uintptr(fd), "eventfd")
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &FD{file: file, conn: conn, fd: fd, add: addOne}, nil
}

// one is the number 1 in the host's byte order (amd64: little endian).
var one = [8]byte{1}

func addOne(fd uintptr) {
	for {
		// EAGAIN says that the counter is full: the waiter is woken anyway. No other
		// error exists for an open eventfd and 8 bytes.
		if _, err := unix.Write(int(fd), one[:]); err != unix.EINTR {
			return
		}
	}
}

// FD returns the descriptor number, to give to KVM. It is valid until Close.
func (f *FD) FD() int { return f.fd }

// Signal wakes one Wait, now or later. Signals that nobody waited for in
// between count as one. It never blocks, and fails only after Close.
func (f *FD) Signal() error { return f.conn.Control(f.add) }

// Wait blocks until the next Signal, also one that came before the call. After
// Close it returns an error that wraps os.ErrClosed.
func (f *FD) Wait() error {
	var count [8]byte
	_, err := f.file.Read(count[:])
	return err
}

// Close wakes every Wait. A second Close returns an error that wraps
// os.ErrClosed.
func (f *FD) Close() error { return f.file.Close() }
