package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Bounds on what a kernel file may claim.
const (
	maxFileSize     = 4 << 30   // a vmlinux with debug information is near 1 GiB
	maxBzImageSize  = 256 << 20 // read into memory as a whole
	maxUnpackedSize = 512 << 20
)

// ErrKernel says that a file is no kernel that can be started.
var ErrKernel = errors.New("bad kernel file")

// Kernel is an opened and checked kernel. It may be loaded many times.
type Kernel struct {
	path     string
	image    io.ReaderAt // the ELF file
	file     *os.File    // nil when the image is in memory
	entry    uint32      // physical address of the PVH entry
	segments []segment
}

// segment is a PT_LOAD program header.
type segment struct {
	offset int64  // in the image
	filesz uint64 // bytes to copy
	phys   uint64
	memsz  uint64 // bytes that the kernel uses; those beyond filesz are zero
}

func (s segment) end() uint64 { return s.phys + s.memsz }

// Path returns the name of the file.
func (k Kernel) Path() string { return k.path }

// Entry returns the physical address at which vCPU 0 starts.
func (k Kernel) Entry() uint32 { return k.entry }

// Close closes the file. A Kernel that was unpacked into memory has none.
func (k Kernel) Close() error {
	if k.file == nil {
		return nil
	}
	return k.file.Close()
}

// Open opens a vmlinux or a bzImage and checks it. The error wraps ErrKernel
// when the file is at fault and names it.
func Open(path string) (Kernel, error) {
	file, err := os.Open(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel: %w", err)
	}
	k, err := openFile(file)
	if err != nil {
		_ = file.Close()
		return Kernel{}, fmt.Errorf("kernel %s: %w", path, err)
	}
	if k.file == nil {
		_ = file.Close()
	}
	k.path = path
	return k, nil
}

func openFile(file *os.File) (Kernel, error) {
	info, err := file.Stat()
	if err != nil {
		return Kernel{}, err
	}
	size := info.Size()
	switch {
	case !info.Mode().IsRegular():
		return Kernel{}, fmt.Errorf("%w: not a regular file", ErrKernel)
	case size > maxFileSize:
		return Kernel{}, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrKernel, size, int64(maxFileSize))
	}
	head := make([]byte, bzHeaderEnd)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Kernel{}, err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, elfMagic):
		k, err := parseELF(file, uint64(size))
		k.file = file
		return k, err
	case isBzImage(head):
		return openBzImage(file, size)
	}
	return Kernel{}, fmt.Errorf("%w: neither an ELF vmlinux nor a bzImage", ErrKernel)
}

func openBzImage(file io.ReaderAt, size int64) (Kernel, error) {
	if size > maxBzImageSize {
		return Kernel{}, fmt.Errorf("%w: bzImage of %d bytes, at most %d are accepted", ErrKernel, size, int64(maxBzImageSize))
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, size), data); err != nil {
		return Kernel{}, fmt.Errorf("read bzImage: %w", err)
	}
	vmlinux, err := unpackBzImage(data)
	if err != nil {
		return Kernel{}, err
	}
	k, err := parseELF(bytes.NewReader(vmlinux), uint64(len(vmlinux)))
	if err != nil {
		return Kernel{}, fmt.Errorf("vmlinux inside the bzImage: %w", err)
	}
	return k, nil
}
