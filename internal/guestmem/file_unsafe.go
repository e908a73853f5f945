package guestmem

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapOver replaces the mapping under p by a private one of the file.
func mapOver(p []byte, fd int, off int64) error {
	// SAFETY: p is page-aligned and wholly inside a mapping that Alloc has just made
	// and that nobody uses yet (Map, MapFile); the new mapping has the same
	// place, size and protection, so every slice of the old one stays valid.
	_, err := unix.MmapPtr(fd, off, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}
