package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout bounds the wait for another command on the same container. No
// holder keeps the lock while it waits for a guest, except Delete, which waits
// at most killTimeout for that, and about as long for systemd.
const lockTimeout = time.Minute

// lock takes the lock of a state directory. ErrNotExist means that there is
// no directory, or not yet or no longer a lock in it. The lock ends with the
// file's Close.
func lock(dir string) (*os.File, error) { return openLock(dir, 0) }

// newLock makes the lock of a directory that its caller has just made. Nobody
// else makes one: it would come back into a directory that is being removed.
func newLock(dir string) (*os.File, error) { return openLock(dir, os.O_CREATE) }

func openLock(dir string, flags int) (*os.File, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	if err := flockWait(ctx, f); err != nil {
		_ = f.Close()
		return nil, err
	}
	// The previous holder may have removed the directory.
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 {
		_ = f.Close()
		return nil, ErrNotExist
	}
	return f, nil
}

// flockWait takes an exclusive lock. flock has no time limit of its own, and
// a blocked one would hold a thread.
func flockWait(ctx context.Context, f *os.File) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return &os.PathError{Op: "flock", Path: f.Name(), Err: os.ErrDeadlineExceeded}
		}
	}
}

// alive says whether the sandbox process of a state directory lives.
func alive(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, aliveFile), os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	for {
		// Shared, so that two who ask do not take each other for the process.
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return errors.Is(err, unix.EWOULDBLOCK)
		}
	}
}
