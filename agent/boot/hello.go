package boot

import (
	"bytes"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// Dial connects to the host and says hello. The hello goes out before the
// descriptor is handed to Go's poller, whose set-up can wait. When the boot is
// counted there may be no host, and it is not waited for.
func Dial(o Options) (io.ReadWriteCloser, error) { return dial(o, 0) }

// Redial is Dial for a host that may take any time to answer: a guest that is
// saved as a template waits here, for the life of it.
func Redial(o Options) (io.ReadWriteCloser, error) { return dial(o, forever) }

func dial(o Options, limit time.Duration) (io.ReadWriteCloser, error) {
	var fd int
	var err error
	switch {
	case o.Serial:
		fd, err = openPort(wire.ControlPortName)
	case o.Count:
		fd, err = dialVsock(wire.ControlPort, 1, limit)
	default:
		fd, err = dialVsock(wire.ControlPort, dialTries, limit)
	}
	if err != nil {
		return nil, err
	}
	if err := writeAll(fd, wire.AppendHello(nil, hello())); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return newConn(fd, "control")
}

// NewOpener returns the way to open streams.
func NewOpener(serial bool) wire.Opener {
	if serial {
		return new(serialOpener)
	}
	return vsockOpener{}
}

func hello() *wire.Hello {
	h := &wire.Hello{Version: wire.Version}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		release := u.Release[:]
		if i := bytes.IndexByte(release, 0); i >= 0 {
			release = release[:i]
		}
		h.Kernel = string(release)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err == nil {
		h.UptimeNS = ts.Nano()
	}
	return h
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		b = b[n:]
	}
	return nil
}
