package sandbox

// One more process in the container, docs/flows/exec.md:
//
//	stand-in on the host ── Exec, pipes ──▶ control.go ── Exec ──▶ agent
//	its fds 0 to 2 ◀── pipes ──▶ stdio.go ◀── streams ──▶ process
//
// The process lives no longer than the connection that asked for it: the
// stand-in is what the host sees of it.

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

// execProcess is a process that Exec made.
type execProcess struct {
	id    string
	pid   int // of the stand-in
	io    *stdio
	ended chan *wire.ContainerExited // has room for one: the agent's event
	done  chan struct{}              // closed when code is valid and the files are closed
	code  int
}

// execs are those whose stand-ins are connected.
type execs struct {
	mu  sync.Mutex
	all map[string]*execProcess // by id; protected by mu
}

func (s *execs) add(e *execProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]*execProcess)
	}
	s.all[e.id] = e
}

func (s *execs) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
}

func (s *execs) get(id string) *execProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id]
}

// exited takes the agent's event.
func (s *execs) exited(x *wire.ContainerExited) {
	if e := s.get(x.ExecID); e != nil {
		select {
		case e.ended <- x:
		default: // once is enough
		}
	}
}

// pids lists the stand-ins of processes that have not ended.
func (s *execs) pids() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pids []int
	for _, e := range s.all {
		if !e.isDone() {
			pids = append(pids, e.pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func (e *execProcess) isDone() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// exec runs a process. It ends when ctx, the connection, does.
func (c *container) exec(ctx context.Context, p *control.Exec, files []*os.File) (*control.ExecStarted, error) {
	if err := c.awaitRunning(ctx, p.Wait); err != nil {
		return nil, err
	}
	var want wire.Process
	if err := json.Unmarshal(p.Process, &want); err != nil {
		return nil, badRequest("process: " + err.Error())
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails, see crypto/rand
	e := &execProcess{
		id: hex.EncodeToString(id), pid: p.Pid, io: &stdio{terminal: want.Terminal},
		ended: make(chan *wire.ContainerExited, 1), done: make(chan struct{}),
	}
	e.io.onHangup = func() { c.closeStdin(e) }
	if c.plan.Placeholder {
		return nil, badRequest(noProcess)
	}
	if err := e.io.adopt(p.Null, files); err != nil {
		return nil, err
	}
	c.execs.add(e) // before the call: the event may be faster than us
	if err := c.execInGuest(ctx, e, &want); err != nil {
		c.execs.remove(e.id)
		e.io.close()
		return nil, guestError(err)
	}
	e.io.start()
	context.AfterFunc(ctx, func() { c.execs.remove(e.id) })
	go c.routineExec(ctx, e)
	return &control.ExecStarted{ExecID: e.id}, nil
}

func (c *container) execInGuest(ctx context.Context, e *execProcess, process *wire.Process) error {
	names, err := e.io.expect(c.streams)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = c.client.Call(ctx, wire.MethodExec, &wire.Exec{ID: c.id, ExecID: e.id, Process: *process, IO: names}, nil)
	if err != nil {
		e.io.cancel()
		if ctx.Err() != nil {
			// It may come to run after all, and nobody wants it.
			go func() { _ = c.signal(e.id, unix.SIGKILL) }()
		}
		return err
	}
	if err := e.io.connect(ctx); err != nil {
		go func() { _ = c.signal(e.id, unix.SIGKILL) }()
		return err
	}
	return nil
}

// routineExec waits for the end of a process, of its stand-in or of the
// container.
func (c *container) routineExec(ctx context.Context, e *execProcess) {
	e.code = 128 + int(unix.SIGKILL)
	select {
	case x := <-e.ended:
		e.io.drain(ctx, x.Stdout, x.Stderr)
		e.code = status(x)
	case <-c.stopped:
	case <-ctx.Done():
		if err := c.signal(e.id, unix.SIGKILL); err != nil {
			c.log.Debug("kill an exec whose stand-in is gone", "err", err)
		}
	}
	close(e.done)
	e.io.close()
}

// execWait answers when a process has ended.
func (c *container) execWait(ctx context.Context, id string) (*control.Exit, error) {
	e := c.execs.get(id)
	if e == nil {
		return nil, errNoExec
	}
	select {
	case <-e.done:
		return &control.Exit{Code: e.code}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errNoExec = &control.Error{Kind: control.KindNotRunning, Message: "process does not exist"}

func badRequest(text string) error {
	return &control.Error{Kind: control.KindBadRequest, Message: text}
}

// killExec sends a signal to an exec's process.
func (c *container) killExec(id string, sig unix.Signal) error {
	e := c.execs.get(id)
	if e == nil || e.isDone() {
		return errNoExec
	}
	return guestError(c.signal(id, sig))
}

// resizeExec sets the window size of an exec's terminal.
func (c *container) resizeExec(ctx context.Context, p *control.Resize) error {
	if e := c.execs.get(p.ExecID); p.ExecID != "" && (e == nil || e.isDone()) {
		return errNoExec
	}
	if c.isPaused() {
		return errPaused
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return guestError(c.client.Call(ctx, wire.MethodResizeTTY, &wire.ResizeTTY{
		ID: c.id, ExecID: p.ExecID, Width: p.Width, Height: p.Height,
	}, nil))
}

// closeStdin ends an exec's terminal whose host side has gone.
func (c *container) closeStdin(e *execProcess) {
	if e.isDone() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := c.client.Call(ctx, wire.MethodCloseStdin, &wire.CloseStdin{ID: c.id, ExecID: e.id}, nil)
	if err != nil {
		c.log.Debug("hang up", "err", err)
	}
}
