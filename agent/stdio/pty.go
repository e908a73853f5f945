package stdio

import (
	"os"

	"golang.org/x/sys/unix"
)

// PTY is a pseudo terminal of a container's devpts.
type PTY struct {
	Master *os.File
	slave  int
}

// OpenPTY makes a terminal in the devpts whose top directory is devpts. The
// slave comes from the master itself (TIOCGPTPEER), so no path of the container
// is walked. uid owns it.
func OpenPTY(devpts int, uid, width, height int) (*PTY, error) {
	fd, err := unix.Openat(devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, os.NewSyscallError("open ptmx", err)
	}
	slave, err := openPeer(fd, uid)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	p := &PTY{Master: os.NewFile(uintptr(fd), "ptmx"), slave: slave}
	if width > 0 && height > 0 {
		if err := p.Resize(uint16(width), uint16(height)); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

func openPeer(master, uid int) (int, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, os.NewSyscallError("TIOCSPTLCK", err)
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, os.NewSyscallError("TIOCGPTPEER", errno)
	}
	slave := int(n)
	if uid != 0 {
		if err := unix.Fchown(slave, uid, -1); err != nil {
			_ = unix.Close(slave)
			return -1, os.NewSyscallError("fchown", err)
		}
	}
	return slave, nil
}

// Slave is the process's side.
func (p *PTY) Slave() int { return p.slave }

// Resize sets the window size; the foreground processes get SIGWINCH.
func (p *PTY) Resize(width, height uint16) error {
	raw, err := p.Master.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	if err := raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}); err != nil {
		return err
	}
	return os.NewSyscallError("TIOCSWINSZ", ierr)
}

// Close closes both sides.
func (p *PTY) Close() {
	_ = p.Master.Close()
	if p.slave >= 0 {
		_ = unix.Close(p.slave)
		p.slave = -1
	}
}
