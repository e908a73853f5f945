package guestmem

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the largest page with which the host's MMU backs a guest, where
// guest-physical and host address agree modulo its size.
const hugePage = 2 << 20

// mapRAM maps size bytes of zeroed memory, at a multiple of hugePage.
func mapRAM(size uint64) ([]byte, error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size)+hugePage, prot, flags)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	head := -uintptr(p) % hugePage
	// SAFETY: head is less than hugePage, so p+head is in the mapping, with size
	// bytes behind it. What is before and after them is unmapped here and used by nobody.
	ram := unsafe.Add(p, head)
	if head > 0 {
		_ = unix.MunmapPtr(p, head) // cannot fail: page-aligned and mapped; at worst it stays reserved
	}
	_ = unix.MunmapPtr(unsafe.Add(ram, size), hugePage-head)
	return unsafe.Slice((*byte)(ram), size), nil
}

// mapOver replaces the mapping under p by a private one of the file.
func mapOver(p []byte, fd int, off int64) error {
	// SAFETY: p is page-aligned and wholly inside a mapping that Alloc has just made
	// and that nobody uses yet (Map, MapFile); the new mapping has the same
	// place, size and protection, so every slice of the old one stays valid.
	_, err := unix.MmapPtr(fd, off, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

// unmapRAM frees what mapRAM returned.
func unmapRAM(ram []byte) error {
	// SAFETY: it is the whole mapping, and the caller says that nobody uses it any more.
	return os.NewSyscallError("munmap", unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(ram)), uintptr(len(ram))))
}
