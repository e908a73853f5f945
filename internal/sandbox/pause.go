package sandbox

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

// pausing is the state of a pause, of the VM and so of all its containers. While the
// vCPUs are stopped no call to the agent is answered, so none is made.
type pausing struct {
	mu      sync.Mutex    // taken after a container's
	on      bool          // protected by mu
	resumed chan struct{} // closed at the end of the pause; protected by mu
	pending []wire.Signal // sent at the end of the pause; protected by mu
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
	if c.exiting || c.state != control.StateCreated && c.state != control.StateRunning {
		return errStopped
	}
	c.pause.mu.Lock()
	defer c.pause.mu.Unlock()
	if c.pause.on {
		return errPaused
	}
	// With the locks held: vCPUs leave the guest at once when they are asked, or
	// Pause gives up after two seconds.
	if err := c.vm.Pause(); err != nil {
		return err
	}
	c.pause.on, c.pause.resumed = true, make(chan struct{})
	return nil
}

// resumeVM lets the vCPUs go on and delivers what has come meanwhile.
func (c *container) resumeVM() error {
	c.pause.mu.Lock()
	if !c.pause.on {
		c.pause.mu.Unlock()
		return errNotPaused
	}
	if err := c.vm.Resume(); err != nil {
		c.pause.mu.Unlock()
		return err
	}
	pending := c.pause.pending
	c.pause.on, c.pause.pending = false, nil
	close(c.pause.resumed)
	c.pause.mu.Unlock()
	go func() {
		c.resize()
		for _, s := range pending {
			if err := c.sendSignal(&s); err != nil {
				c.log.Debug("signal after a pause", "err", err)
			}
		}
	}()
	return nil
}

// isPaused says whether the container's processes stand still, with the VM or alone.
func (c *container) isPaused() bool { return c.frozen.Load() || c.vmPaused() }

func (g *pod) vmPaused() bool {
	g.pause.mu.Lock()
	defer g.pause.mu.Unlock()
	return g.pause.on
}

// signal sends a signal to a process in the guest, or keeps it for the end
// of a pause.
func (c *container) signal(execID string, sig unix.Signal) error {
	s := wire.Signal{ID: c.id, ExecID: execID, Signal: int(sig)}
	c.pause.mu.Lock()
	if c.pause.on {
		if !slices.Contains(c.pause.pending, s) && len(c.pause.pending) < maxPending {
			c.pause.pending = append(c.pause.pending, s)
		}
		c.pause.mu.Unlock()
		return nil
	}
	c.pause.mu.Unlock()
	return c.sendSignal(&s)
}

func (g *pod) sendSignal(s *wire.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return g.client.Call(ctx, wire.MethodSignal, s, nil)
}

// awaitRunning returns when the container runs. With wait, a pause may last.
func (c *container) awaitRunning(ctx context.Context, wait bool) error {
	for {
		c.mu.Lock()
		state, exiting := c.state, c.exiting
		c.mu.Unlock()
		paused, resumed := c.pauseState()
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

// pauseState says whether the container is paused, and when it goes on.
func (c *container) pauseState() (bool, <-chan struct{}) {
	c.mu.Lock()
	thawed := c.thawed
	c.mu.Unlock()
	if c.frozen.Load() {
		return true, thawed
	}
	c.pause.mu.Lock()
	defer c.pause.mu.Unlock()
	return c.pause.on, c.pause.resumed
}

// freeze pauses one container of a pod, whose VM goes on for the others.
func (c *container) freeze(ctx context.Context) error {
	c.freezing.Lock()
	defer c.freezing.Unlock()
	switch {
	case c.isOver():
		return errStopped
	case c.isPaused():
		return errPaused
	}
	if err := c.ask(ctx, wire.MethodFreeze, &wire.Freeze{ID: c.id, Frozen: true}, nil); err != nil {
		return err
	}
	c.mu.Lock()
	c.thawed = make(chan struct{})
	c.mu.Unlock()
	c.frozen.Store(true)
	return nil
}

// thaw lets it go on.
func (c *container) thaw(ctx context.Context) error {
	c.freezing.Lock()
	defer c.freezing.Unlock()
	switch {
	case c.vmPaused():
		return errPaused
	case !c.frozen.Load():
		return errNotPaused
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.client.Call(ctx, wire.MethodFreeze, &wire.Freeze{ID: c.id}, nil); err != nil {
		return guestError(err)
	}
	c.frozen.Store(false)
	c.mu.Lock()
	close(c.thawed)
	c.mu.Unlock()
	return nil
}
