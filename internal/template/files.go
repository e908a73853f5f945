package template

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files of a template, beside those of package vmstate.
const (
	metaFile     = "meta.json"
	verifiedFile = "verified"
)

// maxSmall bounds meta.json, in bytes.
const maxSmall = 64 << 10

// checkOwn refuses what another user has or can get at.
func checkOwn(info os.FileInfo) string {
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case st.Uid != uint32(os.Geteuid()):
		return fmt.Sprintf("belongs to user %d", st.Uid)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Sprintf("has mode %#o: others can get at it", info.Mode().Perm())
	case info.Mode().IsRegular() && st.Nlink != 1:
		return fmt.Sprintf("has %d names", st.Nlink)
	}
	return ""
}

// checkDir is checkOwn for a directory. An error of os comes as it is.
func checkDir(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &Error{Path: path, Why: "is not a directory"}
	}
	if why := checkOwn(info); why != "" {
		return &Error{Path: path, Why: why}
	}
	return nil
}

// open opens a file to read. It waits for nothing that may lie there instead.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &Error{Path: path, Why: "is missing"}
	case errors.Is(err, unix.ELOOP):
		return nil, &Error{Path: path, Why: "is a symbolic link"}
	}
	return f, err
}

// checkFile refuses all but a regular file that is ours alone.
func checkFile(f *os.File) (os.FileInfo, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Path: f.Name(), Why: "is not a regular file"}
	}
	if why := checkOwn(info); why != "" {
		return nil, &Error{Path: f.Name(), Why: why}
	}
	return info, nil
}

// readSmall reads a file of ours.
func readSmall(path string) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := checkFile(f)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSmall {
		return nil, &Error{Path: path, Why: fmt.Sprintf("has %d bytes, more than any lucid writes", info.Size())}
	}
	return io.ReadAll(io.LimitReader(f, maxSmall))
}

// writeSmall replaces a file in one step. With sync it is on disk then.
func writeSmall(path string, data []byte, sync bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// syncDir makes what was renamed in a directory last.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// block is the unit of digest, in bytes.
const block = 64 << 10

var zeros [block]byte

// digest is the SHA-256 of a file's size and of its blocks that are not zero,
// each with its offset. So holes cost nothing, and a copy that has them filled,
// or other ones, has the same digest.
func digest(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	number := func(n int64) { _, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n))) }
	number(info.Size())
	buf := make([]byte, block)
	for at := nextData(f, 0); at < info.Size(); {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if n == 0 {
			break // shorter since: the size tells
		}
		if bytes.Equal(buf[:n], zeros[:n]) {
			at = nextData(f, at+int64(n))
			continue
		}
		number(at)
		_, _ = h.Write(buf[:n])
		at += int64(n)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// nextData is the block at or after at that may have data.
func nextData(f *os.File, at int64) int64 {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // lseek(2): no more data
		return 1<<63 - 1
	case err != nil: // a file system without holes
		return at
	}
	return data / block * block
}
