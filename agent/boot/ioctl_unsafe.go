package boot

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlBytes passes a structure that the kernel reads.
func ioctlBytes(fd int, req uintptr, arg []byte) error {
	// SAFETY: arg is not empty and live through the call; its length agrees
	// with the size field inside it, see randPoolInfo.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
	if errno != 0 {
		return errno
	}
	return nil
}
