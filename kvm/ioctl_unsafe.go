package kvm

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl calls one KVM ioctl whose argument is a number. EINTR is tried again:
// no ioctl here but KVM_RUN, which does not come this way, uses it as an answer.
func ioctl(fd int, name string, request, arg uintptr) (int, error) {
	for {
		r, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
		switch errno {
		case 0:
			return int(r), nil
		case syscall.EINTR:
			continue
		}
		return 0, os.NewSyscallError(name, errno)
	}
}

// ioctlPtr calls one KVM ioctl whose argument points to the C struct that T
// mirrors.
func ioctlPtr[T any](fd int, name string, request uintptr, arg *T) (int, error) {
	for {
		// SAFETY: arg points to a live T with the layout that request expects (the ABI
		// test compares them); the conversion is in the call, so arg stays alive and in
		// place until the kernel is done.
		r, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(r), nil
		case syscall.EINTR:
			continue
		}
		return 0, os.NewSyscallError(name, errno)
	}
}

// moveBytes calls an ioctl whose argument points to p.
func (c *VCPU) moveBytes(name string, request uintptr, p []byte) error {
	for {
		// SAFETY: p is live and in place until the call returns, and the caller has
		// checked that it has at least as many bytes as the kernel moves.
		_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(c.fd), request, uintptr(unsafe.Pointer(unsafe.SliceData(p))))
		if errno != syscall.EINTR {
			if errno == 0 {
				return nil
			}
			return os.NewSyscallError(name, errno)
		}
	}
}

func hostAddr(p []byte) uint64 {
	// SAFETY: the pointer becomes a number for the kernel; the caller of
	// SetMemoryRegion keeps the mapping alive for as long as the VM.
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
}
