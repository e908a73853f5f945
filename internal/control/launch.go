package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Child is the sandbox process's end of a launch.
type Child struct {
	Launch Launch
	// StateDir, Alive and Log are the inherited descriptors.
	StateDir *os.File
	Log      *os.File

	socket *os.File
	alive  *os.File

	once sync.Once
}

// Inherit takes over the inherited descriptors and reads the configuration.
// The sandbox process calls it once, first of all.
func Inherit() (*Child, error) {
	for fd := LaunchFD; fd <= LogFD; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, errors.New("this command is for lucid's own use: it inherits what it works on")
		}
	}
	c := &Child{
		socket:   os.NewFile(LaunchFD, "launch"),
		StateDir: os.NewFile(StateDirFD, "state"),
		alive:    os.NewFile(AliveFD, "alive"),
		Log:      os.NewFile(LogFD, "log"),
	}
	if err := Receive(c.socket, &c.Launch); err != nil {
		return nil, fmt.Errorf("launch configuration: %w", err)
	}
	return c, nil
}

// Orphaned starts to watch the launch socket: onLoss is called, once, if the
// creator goes away before it has committed, or ever, if it says so (Commit).
func (c *Child) Orphaned(onLoss func()) {
	go func() {
		var commit Commit
		err := Receive(c.socket, &commit)
		if err == nil && commit.Bound {
			err = Receive(c.socket, &commit) // nothing more is sent: this is the end
		}
		if err != nil {
			onLoss()
		}
		_ = c.socket.Close()
	}()
}

// Ready reports success, or why there is none, to the creator.
func (c *Child) Ready(r Ready) error {
	err := io.ErrClosedPipe
	c.once.Do(func() { err = Send(c.socket, r) })
	return err
}

// Now is CLOCK_MONOTONIC in nanoseconds, the clock of Launch.Spawned.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // the kernel has this clock since 2.6
	}
	return ts.Nano()
}
