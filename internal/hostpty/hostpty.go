// Package hostpty makes the host's half of a container's terminal: a pty whose
// slave the process that stands for the container holds. It is raw, because the
// line discipline is the guest's.
//
// The smallest use:
//
//	p, err := hostpty.New(spec.Process.ConsoleSize)
//	// p.Slave is the process's 0 to 2; p.Master is the caller's
package hostpty

import (
	"os"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Pty is a pair. Both ends are the caller's to close.
type Pty struct {
	Master console.Console
	Slave  *os.File
}

// New makes a pty. size, in characters, may be nil.
func New(size *specs.Box) (*Pty, error) {
	master, path, err := console.NewPty()
	if err != nil {
		return nil, err
	}
	p := &Pty{Master: master}
	p.Slave, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = MakeRaw(p.Slave)
	}
	if err == nil && size != nil {
		err = master.Resize(console.WinSize{Height: uint16(size.Height), Width: uint16(size.Width)})
	}
	if err != nil {
		_ = master.Close()
		if p.Slave != nil {
			_ = p.Slave.Close()
		}
		return nil, err
	}
	return p, nil
}

// MakeRaw turns the whole line discipline off (cfmakeraw(3)): bytes pass as
// they are. console.Console.SetRaw leaves the output half on.
func MakeRaw(f interface{ Fd() uintptr }) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("TCGETS", err)
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return os.NewSyscallError("TCSETS", unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t))
}
