package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

const (
	// callTimeout is for calls that the agent answers at once, on a guest
	// that software KVM runs.
	callTimeout = 30 * time.Second
	// startTimeout includes the exec of a large program there.
	startTimeout = 5 * time.Minute
	// killPatience is how long the guest may take to end a process that got
	// SIGKILL. Then the VM is ended.
	killPatience = 15 * time.Second
	// syncTimeout bounds the write-back of dirty pages at the end.
	syncTimeout = 2 * time.Minute

	entropyBytes = 64
)

// container is a container in the guest: the one whose process this is, or a
// member of its pod (pod.go).
//
//	creating ──create──▶ created ──start──▶ running ──finish──▶ stopped
//	    └──────────────────────┴── abort ────────────────────────▲
type container struct {
	*pod
	id    string
	pid   int        // on the host
	main  *container // of a member: the pod's own; else nil
	plan  *oci.Plan
	io    *stdio
	times *timeline
	log   *slog.Logger

	patience time.Duration // killPatience, but for tests

	ended   chan *wire.ContainerExited // has room for one: the agent's event
	aborted chan int                   // has room for one: the exit code

	mu      sync.Mutex
	state   control.State // protected by mu
	exit    *control.Exit // protected by mu; set with state stopped
	exiting bool          // protected by mu: the process has ended, its output may not be out yet
	thawed  chan struct{} // protected by mu; of a frozen member: closed when it goes on

	freezing sync.Mutex  // held during freeze and thaw
	frozen   atomic.Bool // changed with freezing held

	execs execs
	oom   oomKills

	starting sync.Once // starts to copy the stdio: a start that failed may be tried again

	started chan struct{} // closed when the process has been started
	over    chan struct{} // closed when the process has ended (exiting)
	stopped chan struct{} // closed with state stopped
}

func newContainer(id string, plan *oci.Plan, times *timeline, log *slog.Logger) *container {
	return &container{
		pod: &pod{exports: exports{vm: &plan.VM}}, id: id, pid: os.Getpid(), plan: plan, times: times, log: log, state: control.StateCreating, patience: killPatience,
		ended: make(chan *wire.ContainerExited, 1), aborted: make(chan int, 1), started: make(chan struct{}), over: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// onEvent runs on the goroutine that reads the agent's frames.
func (c *container) onEvent(e wire.Event) {
	// Nothing that a guest says unasked is worth a log line.
	switch e.Method {
	case wire.EventContainerExited:
		if x, err := e.Exited(); err == nil {
			if of := c.named(x.ID); of != nil {
				of.exited(x)
			}
		}
	case wire.EventContainerOOM:
		if x, err := e.OOM(); err == nil {
			if of := c.named(x.ID); of != nil {
				of.oom.grow(x.Kills)
			}
		}
	}
}

// named finds this container or a member of its pod; nil if there is none.
func (c *container) named(id string) *container {
	if id == c.id {
		return c
	}
	return c.member(id)
}

// exited takes the agent's word for the end of a process.
func (c *container) exited(x *wire.ContainerExited) {
	if x.ExecID != "" {
		c.execs.exited(x)
		return
	}
	c.mu.Lock()
	first := !c.exiting
	c.exiting = true
	c.mu.Unlock()
	if first {
		c.times.now(control.MarkExited)
		close(c.over)
		c.ended <- x
	}
}

// configure gives the guest what it cannot know. It may take the guest as long as
// the rest of its start: a host with too much to do was seen to need a minute.
func (c *container) configure(ctx context.Context) error {
	seed := make([]byte, entropyBytes)
	_, _ = rand.Read(seed) // never fails, see crypto/rand
	configure := &wire.Configure{
		Hostname: c.plan.Guest.Hostname, TimeNS: time.Now().UnixNano(), Entropy: seed, Share: wire.Share{Cache: c.plan.VM.Cache},
	}
	if c.plan.Placeholder && c.plan.Guest.Linux != nil {
		configure.Sysctl = c.plan.Guest.Linux.Sysctl
	}
	return c.client.Call(ctx, wire.MethodConfigure, configure, nil)
}

// create builds the container in the guest and connects its stdio.
func (c *container) create(ctx context.Context, streams wire.Expecter, files *stdio) error {
	c.streams = streams
	if c.plan.Placeholder {
		c.io = files
		c.setState(control.StateCreated)
		c.times.now(control.MarkCreated)
		return nil
	}
	spec := c.plan.Guest
	if files.terminal {
		p := *spec.Process
		if w, h := files.size(); w > 0 && h > 0 {
			p.ConsoleSize = &specs.Box{Width: uint(w), Height: uint(h)}
		}
		spec.Process = &p
	}
	state, err := c.hookState()
	if err != nil {
		return err
	}
	exports := map[int]string{}
	for _, b := range c.plan.Host.Binds {
		exports[b.Mount] = b.Name
	}
	for _, i := range c.plan.Host.SharedMemory {
		exports[i] = wire.SharedMemory
	}
	names, err := files.expect(streams)
	if err != nil {
		return err
	}
	var filter *wire.Seccomp
	if f := c.plan.Seccomp; f != nil {
		filter = &wire.Seccomp{Filter: f.Program, Flags: f.Flags}
	}
	var created wire.Created
	err = c.client.Call(ctx, wire.MethodCreateContainer, &wire.CreateContainer{
		ID: c.id, Spec: *guestSpec(&spec), State: state, Rootfs: c.plan.Host.Rootfs.Name, MountExports: exports, IO: names, Seccomp: filter,
	}, &created)
	if err != nil {
		files.cancel()
		return err
	}
	for i, w := range created.Warnings {
		if i == maxWarnings {
			break
		}
		c.log.Warn("guest: " + clip(w))
	}
	if err := files.connect(ctx); err != nil {
		return err
	}
	files.onHangup = c.hangUp
	c.io = files
	c.setState(control.StateCreated)
	c.times.now(control.MarkCreated)
	return nil
}

// Bounds on what a guest can put into our log at creation.
const (
	maxWarnings = 32
	maxText     = 1024
)

// clip bounds a text of the guest, and takes out what could act on the
// terminal of whoever reads it.
func clip(s string) string {
	text := printable(s[:min(len(s), maxText)])
	if len(s) > maxText {
		text += "…"
	}
	return text
}

// printable replaces what a terminal may obey (escapes, and controls of writing
// direction), and line ends: one message is one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// start releases the container's process.
func (c *container) start(ctx context.Context) error {
	c.mu.Lock()
	switch {
	case c.isPaused():
		c.mu.Unlock()
		return errPaused
	case c.state == control.StateRunning:
		c.mu.Unlock()
		return &control.Error{Kind: control.KindRunning, Message: "the container is running"}
	case c.state != control.StateCreated || c.exiting:
		c.mu.Unlock()
		return &control.Error{Kind: control.KindNotRunning, Message: "the container has stopped"}
	}
	// Claimed, so that of two who start only one does.
	c.state = control.StateRunning
	c.mu.Unlock()
	if c.plan.Placeholder {
		close(c.started)
		return nil
	}

	// A caller that goes away does not stop what the guest has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	// Before the call: the process may write, and end, before the answer.
	c.starting.Do(c.io.start)
	if err := c.client.Call(ctx, wire.MethodStartContainer, &wire.StartContainer{ID: c.id}, nil); err != nil {
		// Only an answer says that the process does not run.
		var refused *wire.Error
		c.mu.Lock()
		if errors.As(err, &refused) && c.state == control.StateRunning && !c.exiting {
			c.state = control.StateCreated
		}
		c.mu.Unlock()
		return guestError(err)
	}
	c.times.now(control.MarkStarted)
	close(c.started)
	return nil
}

// kill sends a signal to the container's process.
func (c *container) kill(sig unix.Signal) error {
	c.mu.Lock()
	state, exiting, paused := c.state, c.exiting, c.vmPaused()
	c.mu.Unlock()
	switch {
	case state == control.StateStopped || (exiting && sig != unix.SIGKILL):
		return &control.Error{Kind: control.KindNotRunning, Message: "container not running"}
	case exiting:
		// Its process has ended, and somebody wants its output to end too.
		c.abort(128 + int(unix.SIGKILL))
		return nil
	case c.plan.Placeholder:
		c.signalPlaceholder(sig)
		return nil
	case paused && c.main != nil:
		return guestError(c.signal("", sig)) // it waits: the others of the pod are not to go on for it
	}
	if paused && sig == unix.SIGKILL {
		// As with runc on cgroup v2: it does not wait for the end of a pause.
		if err := c.resumeVM(); err != nil {
			c.log.Debug("resume for SIGKILL", "err", err)
		}
	}
	if sig == unix.SIGKILL {
		time.AfterFunc(c.patience, func() {
			c.mu.Lock()
			obeyed := c.exiting
			c.mu.Unlock()
			if !obeyed {
				c.log.Warn("the guest does not end its process: ending the VM")
				c.giveUp()
			}
		})
	}
	err := c.signal("", sig)
	var refused *wire.Error
	if err != nil && sig == unix.SIGKILL && (c.main == nil || !errors.As(err, &refused)) {
		c.giveUp()
		return nil
	}
	return guestError(err)
}

// hangUp ends the container's terminal because the host's has gone. The
// guest's kernel then does what a kernel does: SIGHUP, and EIO for readers.
func (c *container) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := c.client.Call(ctx, wire.MethodCloseStdin, &wire.CloseStdin{ID: c.id}, nil); err != nil {
		c.log.Debug("hang up", "err", err)
	}
}

// abort ends the process with a code, without the guest's help.
func (c *container) abort(code int) {
	select {
	case c.aborted <- code:
	default: // it is ending already
	}
}

// status is where the container stands.
func (c *container) status() control.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.state
	if c.isPaused() && state != control.StateStopped {
		state = control.StatePaused
	}
	return control.Status{State: state, Exit: c.exit}
}

func (c *container) setState(s control.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

// finish makes the container stopped and tells those who wait.
func (c *container) finish(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != control.StateStopped {
		c.state, c.exit = control.StateStopped, &control.Exit{Code: code, At: time.Now()}
		close(c.stopped)
	}
}

// flush has the agent write back what the guest has of the container's files
// in memory. The guest then ends itself.
func (c *container) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
	defer cancel()
	return c.client.Call(ctx, wire.MethodShutdown, nil, nil)
}

// guestError translates the agent's errors.
func guestError(err error) error {
	var we *wire.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &we):
		return fmt.Errorf("guest agent: %w", err)
	case we.Kind == wire.KindNotFound:
		return &control.Error{Kind: control.KindNotRunning, Message: clip(we.Message)}
	default:
		return &control.Error{Kind: control.KindGuest, Message: clip(we.Message)}
	}
}
