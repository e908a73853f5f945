// Package kernfile writes files of the kernel: of proc, sysfs and cgroups.
package kernfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Write writes a file that is there, in one go: what the kernel takes as one
// word. os.WriteFile would ask the poller, which costs more system calls.
func Write(name, value string) error { return WriteAt(unix.AT_FDCWD, name, value) }

// WriteAt is Write for a file below the directory dir.
func WriteAt(dir int, name, value string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	_, err = unix.Write(fd, []byte(value))
	_ = unix.Close(fd)
	if err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}
