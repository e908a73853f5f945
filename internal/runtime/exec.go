package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
)

// ExecConfig is one more process for a container.
type ExecConfig struct {
	// Process is complete and has passed oci.ValidateProcess.
	Process *specs.Process
	// Stdio are the process's 0 to 2. With Process.Terminal they are one
	// terminal in raw mode.
	Stdio [3]*os.File
	// IgnorePaused waits for the end of a pause.
	IgnorePaused bool
}

// Exec is a process in a container for which this process stands: when this
// process ends, so does that one.
//
// The caller's files stay here. The sandbox gets pipes that it can give up
// without blocking, so it holds nothing of the caller's when the process has
// ended or this one was killed (docs/flows/exec.md).
type Exec struct {
	c      *Container
	conn   *connection
	id     string
	copied []chan struct{} // of stdout and stderr: closed at their ends
}

// Exec runs a process.
func (c *Container) Exec(ctx context.Context, cfg ExecConfig) (*Exec, error) {
	if err := c.canExec(cfg.IgnorePaused); err != nil {
		return nil, err
	}
	process := oci.GuestProcess(cfg.Process)
	data, err := json.Marshal(&process)
	if err != nil {
		return nil, err
	}
	p, err := newPipes(cfg.Stdio, cfg.Process.Terminal)
	if err != nil {
		return nil, err
	}
	defer p.closeTheirs()
	conn, err := c.dial(ctx)
	if err != nil {
		p.closeOurs()
		if !alive(c.dir) {
			return nil, ErrExecStopped
		}
		return nil, err
	}
	var started control.ExecStarted
	err = conn.call(ctx, control.MethodExec, control.Exec{
		Process: data, Null: p.null, Pid: os.Getpid(), Wait: cfg.IgnorePaused,
	}, &started, p.theirs...)
	if err != nil {
		_ = conn.Close()
		p.closeOurs()
		return nil, execError(err)
	}
	e := &Exec{c: c, conn: conn, id: started.ExecID}
	e.copy(cfg.Stdio, p.ours)
	return e, nil
}

func (c *Container) canExec(ignorePaused bool) error {
	status, err := c.Status()
	switch {
	case err != nil:
		return err
	case status == Stopped:
		return ErrExecStopped
	case status == Paused && !ignorePaused:
		return ErrExecPaused
	case status == Created, status == Creating:
		return ErrExecCreated
	}
	return nil
}

// execError gives runc's words to what the sandbox says.
func execError(err error) error {
	var ce *control.Error
	if !errors.As(err, &ce) {
		return err
	}
	switch ce.Kind {
	case control.KindNotRunning:
		return ErrExecStopped
	case control.KindPaused:
		return ErrExecPaused
	}
	return ce
}

// pipes connect the caller's files with the sandbox.
type pipes struct {
	null   [3]bool
	ours   [3]*os.File
	theirs []*os.File
}

func newPipes(stdio [3]*os.File, terminal bool) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.closeOurs()
		}
	}()
	for i, f := range stdio {
		if p.null[i] = f == nil || i == 2 && terminal || isNull(f); p.null[i] {
			continue
		}
		// Not os.Pipe: a file of its takes O_NONBLOCK off when it is passed.
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return p, os.NewSyscallError("pipe2", err)
		}
		r, w := os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
		if i == 0 {
			p.ours[i], p.theirs = w, append(p.theirs, r)
		} else {
			p.ours[i], p.theirs = r, append(p.theirs, w)
		}
	}
	return p, nil
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		_ = f.Close()
	}
	p.theirs = nil
}

func (p *pipes) closeOurs() {
	for _, f := range p.ours {
		if f != nil {
			_ = f.Close()
		}
	}
}

// isNull says whether a file is /dev/null (or not open), which needs no pipe.
func isNull(f *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// copy moves bytes for as long as this process lives.
func (e *Exec) copy(stdio, ours [3]*os.File) {
	if in := ours[0]; in != nil {
		// Ends with this process: a read of the caller's file cannot be
		// called off.
		go func() {
			_, _ = io.Copy(in, stdio[0])
			_ = in.Close()
		}()
	}
	for i := 1; i < len(ours); i++ {
		out := ours[i]
		if out == nil {
			continue
		}
		done := make(chan struct{})
		e.copied = append(e.copied, done)
		go func() {
			defer close(done)
			// If nobody reads any more, the process's next write is to fail.
			_, _ = io.Copy(stdio[i], out)
			_ = out.Close()
		}()
	}
}

// Signal sends a signal to the process.
func (e *Exec) Signal(sig unix.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	return e.c.call(ctx, control.MethodKill, control.KillParams{Signal: int(sig), ExecID: e.id}, nil)
}

// Resize sets the window size of the process's terminal.
func (e *Exec) Resize(width, height uint16) error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	return e.c.call(ctx, control.MethodResize, control.Resize{ExecID: e.id, Width: width, Height: height}, nil)
}

// lastOutput is how long output may take to arrive after the sandbox process
// was killed.
const lastOutput = time.Second

// Wait returns the exit status when the process has ended and its output is
// in the caller's files.
func (e *Exec) Wait() int {
	var exit control.Exit
	err := e.conn.call(context.Background(), control.MethodExecWait, control.ExecStarted{ExecID: e.id}, &exit)
	if err != nil {
		// The sandbox process was killed, and its VM with it.
		exit.Code = 128 + int(unix.SIGKILL)
	}
	e.finish(err == nil)
	return exit.Code
}

// finish waits for the last output: all of it, if the sandbox process lives.
func (e *Exec) finish(alive bool) {
	for _, done := range e.copied {
		if alive {
			<-done
			continue
		}
		select {
		case <-done:
		case <-time.After(lastOutput):
		}
	}
	_ = e.conn.Close()
}
