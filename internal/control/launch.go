package control

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
)

// Child is the sandbox process's end of a launch.
type Child struct {
	Launch Launch
	// StateDir, Alive and Log are the inherited descriptors.
	StateDir *os.File
	Log      *os.File

	socket *os.File
	alive  *os.File

	once      sync.Once
	committed chan error
}

// Inherit takes over the inherited descriptors and reads the configuration.
// The sandbox process calls it once, first of all.
func Inherit() (*Child, error) {
	c := &Child{
		socket:    os.NewFile(LaunchFD, "launch"),
		StateDir:  os.NewFile(StateDirFD, "state"),
		alive:     os.NewFile(AliveFD, "alive"),
		Log:       os.NewFile(LogFD, "log"),
		committed: make(chan error, 1),
	}
	for _, f := range []*os.File{c.socket, c.StateDir, c.alive, c.Log} {
		if _, err := f.Stat(); err != nil {
			return nil, fmt.Errorf("not started by lucid: %w", err)
		}
	}
	if err := Receive(c.socket, &c.Launch); err != nil {
		return nil, fmt.Errorf("launch configuration: %w", err)
	}
	return c, nil
}

// Plan decodes Launch.Plan into v.
func (c *Child) Plan(v any) error { return json.Unmarshal(c.Launch.Plan, v) }

// Orphaned starts to watch the launch socket: onLoss is called, once, if the
// creator goes away before it has committed.
func (c *Child) Orphaned(onLoss func()) {
	go func() {
		var commit Commit
		err := Receive(c.socket, &commit)
		c.committed <- err
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
