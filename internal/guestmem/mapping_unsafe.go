package guestmem

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the largest page with which the host's MMU backs a guest, where
// guest-physical and host address agree modulo its size.
const hugePage = 2 << 20

// mapRAM maps size bytes of zeroed memory at a multiple of hugePage, with at
// least a page before and after it that faults: a mistake of ours must not
// reach from the guest's memory into our own, and the kernel must not merge
// the two to one mapping, in which nobody can tell whose pages are counted.
// Whole is for unmapRAM.
func mapRAM(size uint64) (ram, whole []byte, err error) {
	length := uintptr(size) + hugePage + 2*PageSize
	p, err := unix.MmapPtr(-1, 0, nil, length, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	// SAFETY: p is the mapping's begin and length its size.
	whole = unsafe.Slice((*byte)(p), length)
	head := PageSize + -(uintptr(p)+PageSize)%hugePage // up to hugePage
	ram = whole[head : head+uintptr(size) : head+uintptr(size)]
	if err := unix.Mprotect(ram, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		_ = unmapRAM(whole)
		return nil, nil, os.NewSyscallError("mprotect", err)
	}
	return ram, whole, nil
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

// unmapRAM frees what mapRAM returned as whole.
func unmapRAM(whole []byte) error {
	// SAFETY: it is the whole mapping, and the caller says that nobody uses it any more.
	return os.NewSyscallError("munmap", unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(whole)), uintptr(len(whole))))
}
