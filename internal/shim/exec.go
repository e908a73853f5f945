package shim

import (
	"context"
	"encoding/json"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// Exec announces one more process, which Start starts.
func (s *service) Exec(_ context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	if r.ExecID == "" {
		return nil, status.Error(codes.InvalidArgument, "exec_id is empty")
	}
	var spec *specs.Process
	if err := json.Unmarshal(r.Spec.GetValue(), &spec); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "spec: %v", err)
	}
	if spec == nil {
		return nil, status.Error(codes.InvalidArgument, "spec: process cannot be null")
	}
	spec.Terminal = r.Terminal
	if err := oci.ValidateProcess(spec); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	p := newProcess(c, r.ExecID, ioConfig{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal})
	p.spec = spec
	c.mu.Lock()
	_, taken := c.execs[r.ExecID]
	if !taken {
		c.execs[r.ExecID] = p
	}
	c.mu.Unlock()
	if taken {
		return nil, status.Errorf(codes.AlreadyExists, "process %s already exists", r.ExecID)
	}
	s.events.publish("/tasks/exec-added", &apievents.TaskExecAdded{ContainerID: r.ID, ExecID: r.ExecID})
	return &emptypb.Empty{}, nil
}

// Start starts the container's process, or one more.
func (s *service) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	p.gate.Lock()
	defer p.gate.Unlock()
	if state, _ := p.look(); state != created {
		return nil, status.Error(codes.FailedPrecondition, "the process has been started already")
	}
	if r.ExecID != "" {
		if err := s.startExec(ctx, p); err != nil {
			return nil, err
		}
	} else {
		if err := p.container.rc.Start(); err != nil {
			return nil, err
		}
		_, pid := p.look()
		p.setRunning(pid)
		s.events.publish("/tasks/start", &apievents.TaskStart{ContainerID: r.ID, Pid: uint32(pid)})
	}
	_, pid := p.look()
	return &task.StartResponse{Pid: uint32(pid)}, nil
}

// startExec runs the process with a stand-in on the host, which has a pid of its
// own: callers tell processes apart by it. Precondition: p.gate is held.
func (s *service) startExec(ctx context.Context, p *process) error {
	p.container.mu.Lock()
	ending := p.container.ending
	p.container.mu.Unlock()
	if ending {
		return runtime.ErrExecStopped
	}
	streams, err := s.openStreams(p.io, p.container.id, p.spec.ConsoleSize)
	if err != nil {
		return err
	}
	d, err := s.rt.ExecDetached(ctx, p.container.id, runtime.ExecConfig{Process: p.spec, Stdio: streams.child})
	streams.closeChild()
	if err == nil {
		err = d.Commit()
	}
	if err != nil {
		if d != nil {
			d.Discard()
		}
		streams.close()
		// It cannot be started again: it is over, with runc's status for this.
		p.finish(runtime.ExecFailed, time.Now())
		return err
	}
	streams.start()
	p.mu.Lock()
	p.streams, p.standIn = streams, d
	p.mu.Unlock()
	p.setRunning(d.Pid)
	s.events.publish("/tasks/exec-started", &apievents.TaskExecStarted{ContainerID: p.container.id, ExecID: p.execID, Pid: uint32(d.Pid)})
	go func() {
		code := d.Wait()
		p.gate.Lock()
		defer p.gate.Unlock()
		s.ended(p, code)
	}()
	return nil
}
