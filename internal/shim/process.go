package shim

import (
	"context"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// process is the container's own process, or one more.
//
//	created ──start──▶ running ──▶ stopped
//	   └─────────── killed ─────────▲
type process struct {
	container *container
	execID    string // empty for the container's own
	io        ioConfig
	spec      *specs.Process // of an exec

	// gate is held during a start until its event is queued, and while an exit
	// is made known: so the one comes before the other.
	gate sync.Mutex

	mu       sync.Mutex
	state    processState
	pid      int               // protected by mu; 0 before an exec is started
	streams  *streams          // protected by mu
	standIn  *runtime.Detached // of an exec; protected by mu
	exitCode uint32            // protected by mu, as what follows
	exitedAt time.Time
	exited   chan struct{} // closed with state stopped
}

type processState int

const (
	created processState = iota
	running
	stopped
)

func newProcess(c *container, execID string, io ioConfig) *process {
	return &process{container: c, execID: execID, io: io, exited: make(chan struct{})}
}

// look returns the state and the pid.
func (p *process) look() (processState, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.pid
}

// stdio returns the streams; nil before an exec is started.
func (p *process) stdio() *streams {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.streams
}

// finish makes the process stopped.
func (p *process) finish(code int, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.exitCode, p.exitedAt = stopped, uint32(code), at
	close(p.exited)
}

func (p *process) setRunning(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
	if p.state == created {
		p.state = running
	}
}

// wait returns when the process has stopped.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exit is how it ended; zero values before.
func (p *process) exit() (uint32, *timestamppb.Timestamp) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != stopped {
		return 0, nil
	}
	return p.exitCode, timestamppb.New(p.exitedAt)
}

// describe answers State.
func (p *process) describe() *task.StateResponse {
	state, pid := p.look()
	r := &task.StateResponse{
		ID: p.container.id, Bundle: p.container.bundle, Pid: uint32(pid), ExecID: p.execID,
		Stdin: p.io.stdin, Stdout: p.io.stdout, Stderr: p.io.stderr, Terminal: p.io.terminal,
	}
	r.ExitStatus, r.ExitedAt = p.exit()
	switch state {
	case created:
		r.Status = tasktypes.Status_CREATED
	case stopped:
		r.Status = tasktypes.Status_STOPPED
	default:
		r.Status = tasktypes.Status_RUNNING
	}
	if p.execID == "" && state != stopped {
		// A pause may not be our doing: lucid has a command for it.
		if s, err := p.container.rc.Status(); err == nil && s == runtime.Paused {
			r.Status = tasktypes.Status_PAUSED
		}
	}
	return r
}

// signal sends a signal.
func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	state, standIn := p.state, p.standIn
	p.mu.Unlock()
	switch {
	case state == stopped:
		return errFinished
	case p.execID == "":
		return p.container.rc.Signal(sig)
	case standIn == nil:
		return status.Errorf(codes.FailedPrecondition, "process %s has not been started", p.execID)
	}
	if err := standIn.Signal(sig); err != nil {
		return errFinished
	}
	return nil
}

// errFinished has the text that containerd's callers look for.
var errFinished = status.Error(codes.NotFound, "process already finished")

// drainLimit is how long the last output may take to be read before it is given up:
// containerd waits as long for runc's.
const drainLimit = 10 * time.Second

// release gives everything up that the stopped process still has.
func (p *process) release() {
	if streams := p.stdio(); streams != nil {
		streams.drain(drainLimit)
		streams.close()
	}
}
