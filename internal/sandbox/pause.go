package sandbox

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

// pausing is the state of a pause. While the vCPUs are stopped no call to the
// agent is answered, so none is made.
type pausing struct {
	on      bool          // protected by container.mu
	resumed chan struct{} // closed at the end of the pause; protected by container.mu
	pending []wire.Signal // sent at the end of the pause; protected by container.mu
}

// maxPending bounds the signals that wait; the same one again does not count,
// as with a stopped process.
const maxPending = 256

var (
	errPaused    = &control.Error{Kind: control.KindPaused, Message: "the container is paused"}
	errNotPaused = &control.Error{Kind: control.KindPaused, Message: "the container is not paused"}
	errStopped   = &control.Error{Kind: control.KindNotRunning, Message: "container not running"}
)

// pauseVM stops the vCPUs. The container's state stays what it is beneath.
func (c *container) pauseVM() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.exiting || c.state != control.StateCreated && c.state != control.StateRunning:
		return errStopped
	case c.pause.on:
		return errPaused
	}
	// With the lock held: vCPUs leave the guest at once when they are asked.
	if err := c.vm.Pause(); err != nil {
		return err
	}
	c.pause.on, c.pause.resumed = true, make(chan struct{})
	return nil
}

// resumeVM lets the vCPUs go on and delivers what has come meanwhile.
func (c *container) resumeVM() error {
	c.mu.Lock()
	if !c.pause.on {
		c.mu.Unlock()
		return errNotPaused
	}
	if err := c.vm.Resume(); err != nil {
		c.mu.Unlock()
		return err
	}
	pending := c.pause.pending
	c.pause.on, c.pause.pending = false, nil
	close(c.pause.resumed)
	c.mu.Unlock()
	go func() {
		c.resize()
		for _, s := range pending {
			if err := c.signal(s.ExecID, unix.Signal(s.Signal)); err != nil {
				c.log.Debug("signal after a pause", "err", err)
			}
		}
	}()
	return nil
}

func (c *container) isPaused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pause.on
}

// signal sends a signal to a process in the guest, or keeps it for the end
// of a pause.
func (c *container) signal(execID string, sig unix.Signal) error {
	s := wire.Signal{ID: c.id, ExecID: execID, Signal: int(sig)}
	c.mu.Lock()
	if c.pause.on {
		if !slices.Contains(c.pause.pending, s) && len(c.pause.pending) < maxPending {
			c.pause.pending = append(c.pause.pending, s)
		}
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return c.client.Call(ctx, wire.MethodSignal, &s, nil)
}

// awaitRunning returns when the container runs. With wait, a pause may last.
func (c *container) awaitRunning(ctx context.Context, wait bool) error {
	for {
		c.mu.Lock()
		state, exiting, paused, resumed := c.state, c.exiting, c.pause.on, c.pause.resumed
		c.mu.Unlock()
		switch {
		case exiting || state == control.StateStopped:
			return errStopped
		case paused && !wait:
			return errPaused
		case paused:
			select {
			case <-resumed:
			case <-c.stopped:
			case <-ctx.Done():
				return ctx.Err()
			}
		case state != control.StateRunning:
			return badRequest("cannot exec in a container that has not been started")
		default:
			return nil
		}
	}
}
