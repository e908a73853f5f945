package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
)

// Status is where a container stands, in the specification's words.
type Status string

// The statuses.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

const (
	// statusTimeout is how long a live sandbox process may take to answer; one
	// that is stopped by SIGSTOP never does.
	statusTimeout = 2 * time.Second
	// signalTimeout covers a guest on software KVM.
	signalTimeout = 30 * time.Second
	// startTimeout covers the exec of a large program there.
	startTimeout = 5 * time.Minute
	// stoppedGrace lets a sandbox process whose container has exited write
	// out its last output.
	stoppedGrace = 10 * time.Second
)

// Container is one container that Create made or Load found.
type Container struct {
	dir string
	id  string
	rec record // as it was when loaded
	log *slog.Logger

	child   *child   // set by Create: this process is the sandbox's parent
	launch  *os.File // set by Create of a bound container: its end is the container's
	spawned int64    // set by Create: control.Now at that moment
}

// child is a sandbox process of which this process is the parent.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has been waited for
}

// ID returns the container's ID.
func (c *Container) ID() string { return c.id }

// Pid returns the sandbox process, which stands for the container on the host.
func (c *Container) Pid() int { return c.rec.Pid }

// Dir returns the state directory.
func (c *Container) Dir() string { return c.dir }

// Config names the file that the container was described in, for oci.LoadFile.
func (c *Container) Config() string { return cmp.Or(c.rec.Config, oci.ConfigFile) }

// mine says whether the state directory is still this container's.
// Precondition: the directory is locked.
func (c *Container) mine() bool {
	rec, err := readRecord(c.dir)
	return err == nil && rec.Token == c.rec.Token
}

// Status asks where the container stands now.
func (c *Container) Status() (Status, error) {
	_, status, err := c.look()
	return status, err
}

// look reads the record and asks for the status.
func (c *Container) look() (*record, Status, error) {
	rec, status, err := c.known()
	if err != nil || status != "" {
		return rec, status, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	var st control.Status
	err = c.call(ctx, control.MethodStatus, nil, &st)
	switch {
	case err == nil:
		return rec, statusOf(st.State), nil
	case !alive(c.dir):
		return rec, Stopped, nil
	case rec.Started:
		return rec, Running, nil
	default:
		return rec, Created, nil
	}
}

// known reads the record and says where the container stands, or nothing if only its
// sandbox process can say that.
func (c *Container) known() (*record, Status, error) {
	rec, err := readRecord(c.dir)
	switch {
	case err != nil:
		return nil, "", err
	case !alive(c.dir):
		return rec, Stopped, nil
	case !rec.Committed:
		return rec, Creating, nil
	}
	return rec, "", nil
}

func statusOf(s control.State) Status {
	switch s {
	case control.StateCreating:
		return Creating
	case control.StateCreated:
		return Created
	case control.StateStopped:
		return Stopped
	case control.StatePaused:
		return Paused
	default:
		return Running
	}
}

// State is what `lucid state` prints.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      Status            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"` // left to the caller: a user data base is not ours to read
}

// State describes the container as it stands now.
func (c *Container) State() (State, error) {
	rec, status, err := c.look()
	if err != nil {
		return State{}, err
	}
	s := stateOf(rec, status)
	if status == Stopped {
		s.Pid = 0
	}
	return s, nil
}

func stateOf(rec *record, status Status) State {
	return State{
		Version: rec.Version, ID: rec.ID, Pid: rec.Pid, Status: status, Bundle: rec.Bundle,
		Rootfs: rec.Rootfs, Created: rec.Created, Annotations: rec.Annotations,
	}
}

// Start releases the process of a created container.
func (c *Container) Start() error {
	_, status, err := c.known() // what else there is to refuse, the sandbox refuses
	switch {
	case err != nil:
		return err
	case status == Stopped:
		return ErrStartStopped
	case status != "":
		return fmt.Errorf(textStartOther, status)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.call(ctx, control.MethodStart, nil, nil); err != nil {
		var ce *control.Error
		if errors.As(err, &ce) {
			switch ce.Kind {
			case control.KindRunning:
				return ErrStartRunning
			case control.KindPaused:
				return fmt.Errorf(textStartOther, Paused)
			case control.KindNotRunning:
				return ErrStartStopped
			}
			return ce
		}
		if !alive(c.dir) || hungUp(err) {
			return ErrStartStopped
		}
		return err
	}
	// The container may have ended and been deleted by now, and its ID may be
	// another's: no error.
	if l, err := lock(c.dir); err == nil {
		if rec, err := readRecord(c.dir); err == nil && rec.Token == c.rec.Token {
			rec.Started = true
			if err := writeRecord(c.dir, rec); err != nil {
				c.log.Warn("state.json", "err", err)
			}
		}
		_ = l.Close()
	}
	return c.poststart()
}

// Signal sends a signal to the container's process. SIGKILL ends the
// container whatever state its guest is in.
func (c *Container) Signal(sig unix.Signal) error {
	rec, status, err := c.look()
	if err != nil {
		return err
	}
	if status != Created && status != Running && status != Paused {
		return ErrNotRunning
	}
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	err = c.call(ctx, control.MethodKill, control.KillParams{Signal: int(sig)}, nil)
	var ce *control.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ce) && ce.Kind == control.KindNotRunning:
		return ErrNotRunning
	case errors.As(err, &ce):
		return ce
	case !alive(c.dir) && sig == unix.SIGKILL:
		return nil // it went away while it was asked: the signal came too late, or did it
	case sig == unix.SIGKILL:
		return signalProcess(rec.Pid, rec.StartTime, unix.SIGKILL)
	case !alive(c.dir), hungUp(err):
		return ErrNotRunning
	default:
		return err
	}
}

// hungUp says whether a call on a control socket failed because nobody is there: a
// sandbox process at its end closes its socket before its lock, and what is in
// the state directory by then may be another container's.
func hungUp(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE, unix.ECONNREFUSED, os.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// call makes one call on the control socket.
func (c *Container) call(ctx context.Context, method string, params, result any) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.call(ctx, method, params, result)
}

// connection is a control.Conn for one container of those in a VM.
type connection struct {
	*control.Conn
	member string // empty: the one that the sandbox process was made for
}

// dial connects to the process that holds the container's VM.
func (c *Container) dial(ctx context.Context) (*connection, error) {
	conn := &connection{}
	dir := c.dir
	if c.rec.Pod != "" {
		dir, conn.member = podDir(c.dir, c.rec.Pod), c.id
	}
	var err error
	conn.Conn, err = control.Dial(ctx, dir)
	return conn, err
}

// podDir is the state directory of a container's pod.
func podDir(dir, pod string) string { return filepath.Join(filepath.Dir(dir), pod) }

func (c *connection) call(ctx context.Context, method string, params, result any, files ...*os.File) error {
	if c.member == "" {
		return c.CallFiles(ctx, method, params, result, files...)
	}
	m := control.Member{ID: c.member, Method: method}
	if params != nil {
		var err error
		if m.Params, err = json.Marshal(params); err != nil {
			return err
		}
	}
	return c.CallFiles(ctx, control.MethodMember, m, result, files...)
}

// Wait returns the exit status of a container that this process created: a
// process's status, or 128 plus the signal that ended it.
func (c *Container) Wait() int {
	<-c.child.exited
	if c.launch != nil {
		_ = c.launch.Close()
	}
	return exitStatus(c.child.cmd.ProcessState)
}

// AwaitEnd returns when the container's process has ended, which is before Wait
// does: its last output may still be on the way through the VM. An error says
// that nobody can tell any more.
func (c *Container) AwaitEnd() error {
	return c.call(context.Background(), control.MethodEnded, nil, nil)
}

// AwaitOOM returns when the guest's kernel has killed more than seen processes of the container because memory ran out,
// and how many by then. ErrNotRunning says that the container has ended and there are no more.
func (c *Container) AwaitOOM(ctx context.Context, seen uint64) (uint64, error) {
	var got control.OOM
	err := c.call(ctx, control.MethodOOM, control.OOM{Kills: seen}, &got)
	var ce *control.Error
	switch {
	case err == nil:
		return got.Kills, nil
	case errors.As(err, &ce) && ce.Kind == control.KindNotRunning, !alive(c.dir), hungUp(err):
		return seen, ErrNotRunning
	default:
		return seen, err
	}
}

// OOMInterval is the least time between two words of TellOOM: behind them is the guest's, and a guest may say so all the time.
const OOMInterval = time.Second

// TellOOM calls tell after OOM kills in the container, of which there may have been several by then, at most once in
// OOMInterval. When over is closed, because the container's process has ended, what is held back is told at once and as the
// last; over may be nil. An error says why there are no more words: as AwaitOOM's, or that ctx is done.
func (c *Container) TellOOM(ctx context.Context, over <-chan struct{}, tell func()) error {
	var seen uint64
	var last time.Time
	for ended := false; !ended; {
		n, err := c.AwaitOOM(ctx, seen)
		if err != nil {
			return err
		}
		seen = n
		select {
		case <-over:
			ended = true
		case <-time.After(time.Until(last.Add(OOMInterval))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		tell()
		last = time.Now()
	}
	return nil
}

func exitStatus(ps *os.ProcessState) int {
	ws := ps.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// Timeline reads what the sandbox process has written down so far.
func (c *Container) Timeline() (control.Timeline, error) {
	var t control.Timeline
	data, err := os.ReadFile(filepath.Join(c.dir, control.TimelineFile))
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	return t, err
}

// waitGone waits until the sandbox process has ended, at most for d.
func (c *Container) waitGone(d time.Duration) {
	for begin := time.Now(); alive(c.dir) && time.Since(begin) < d; {
		time.Sleep(10 * time.Millisecond)
	}
}
