package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// SocketName is the control socket within a state directory.
const SocketName = "control.sock"

// ErrPeer reports a peer that is another user.
var ErrPeer = errors.New("control: the peer is another user")

// Listen binds the control socket in the directory dir, mode 0600.
func Listen(dir *os.File) (*net.UnixListener, error) {
	// umask is the whole process's: the sandbox calls this before it starts
	// anything else.
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: through(dir)})
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	// The name lies in a directory that goes away as a whole; unlinking it
	// through a stale /proc/self/fd path could hit another file.
	l.SetUnlinkOnClose(false)
	return l, nil
}

// Dial connects to the control socket of a state directory.
func Dial(ctx context.Context, stateDir string) (*Conn, error) {
	dir, err := os.OpenFile(stateDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", through(dir))
	if err != nil {
		// The /proc path would say nothing to the reader.
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("control socket %s: %w", filepath.Join(stateDir, SocketName), err)
	}
	uc := c.(*net.UnixConn)
	if err := checkPeer(uc); err != nil {
		_ = uc.Close()
		return nil, err
	}
	return &Conn{c: uc}, nil
}

// through is a short path to the socket in dir, of any depth.
func through(dir *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + SocketName
}

// checkPeer accepts the same user, and root.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var sysErr error
	err = raw.Control(func(fd uintptr) {
		cred, sysErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return err
	}
	if sysErr != nil {
		return os.NewSyscallError("getsockopt", sysErr)
	}
	if cred.Uid != uint32(os.Geteuid()) && cred.Uid != 0 {
		return fmt.Errorf("%w: uid %d", ErrPeer, cred.Uid)
	}
	return nil
}
