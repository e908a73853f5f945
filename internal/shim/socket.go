package shim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci"
)

// defaultSocketDir is containerd's, whatever its configuration says.
const defaultSocketDir = "/run/containerd/s"

// errListening says that somebody listens on the socket already.
var errListening = errors.New("a shim of this container listens already")

// socketPath is the same for the same container, so that `delete` finds what
// `start` made, and for all of a pod or group.
func (c *call) socketPath() string {
	dir := c.socketDir
	if dir == "" {
		dir = defaultSocketDir
	}
	whose := c.id
	switch c.role {
	case oci.Member:
		whose = c.group
	case oci.Grouped:
		whose = "group/" + c.group // which is no ID
	}
	return filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256([]byte(filepath.Join(c.address, c.namespace, whose)))))
}

// listen binds the socket, mode 0600. One that nobody listens on any more is
// taken away.
func listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	addr := &net.UnixAddr{Net: "unix", Name: path}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		if listening(path) {
			return nil, fmt.Errorf("%w on %s", errListening, path)
		}
		if e := os.Remove(path); e != nil && !errors.Is(e, os.ErrNotExist) {
			return nil, e
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, err
	}
	// The server, which inherits it, removes it.
	l.SetUnlinkOnClose(false)
	return l, nil
}

// listening says whether somebody listens on a socket. Only the kernel's word that
// nobody does counts: on a busy host a dial can take any time.
func listening(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT)
}
