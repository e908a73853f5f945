package hostfs

import "golang.org/x/sys/unix"

// Lock sets or clears an open-file-description lock and never waits:
// EAGAIN means that somebody else holds a conflicting one. kind is
// unix.F_RDLCK, F_WRLCK or F_UNLCK; length 0 is to the end of the file.
func (f *File) Lock(kind int16, start, length int64) error {
	lk := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: start, Len: length}
	for {
		err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &lk)
		if err == unix.EACCES {
			err = unix.EAGAIN // POSIX allows either
		}
		if err != unix.EINTR {
			return err
		}
	}
}

// TestLock looks for a lock that would be in the way of one that is asked
// for. Kind F_UNLCK in the answer means none.
func (f *File) TestLock(kind int16, start, length int64) (_ int16, s, l int64, _ error) {
	lk := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: start, Len: length}
	if err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_GETLK, &lk); err != nil {
		return 0, 0, 0, err
	}
	return lk.Type, lk.Start, lk.Len, nil
}
