package shim

import (
	"context"
	"log/slog"
	"os"
	"sync"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// service is the task service of one container, or of those of a pod.
type service struct {
	call   *call
	rt     *runtime.Runtime
	events *publisher
	log    *slog.Logger
	exit   func() // ends the server

	mu         sync.Mutex
	creating   map[string]bool       // IDs; protected by mu
	containers map[string]*container // from Create to Delete, by ID; protected by mu
	sandbox    *sandbox              // nil without one; without rc while it is made; protected by mu

	podMu sync.Mutex // held while one is made
	pod   *pod       // nil without one; protected by podMu
}

// container is one of those that there are.
type container struct {
	id     string
	bundle string
	rc     *runtime.Container
	init   *process

	mu     sync.Mutex
	execs  map[string]*process // protected by mu
	ending bool                // no exec can be started any more; protected by mu
}

func newService(c *call, rt *runtime.Runtime, events *publisher, log *slog.Logger, exit func()) *service {
	return &service{
		call: c, rt: rt, events: events, log: log, exit: exit,
		creating: map[string]bool{}, containers: map[string]*container{},
	}
}

// container finds a container.
func (s *service) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "container %s does not exist", id)
	}
	return c, nil
}

// process finds a process.
func (s *service) process(id, execID string) (*process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.execs[execID]; p != nil {
		return p, nil
	}
	return nil, status.Errorf(codes.NotFound, "process %s does not exist", execID)
}

// lastExecs lets no more execs start and lists those that run, or have ended and are not deleted.
func (c *container) lastExecs() []*process {
	c.mu.Lock()
	c.ending = true
	all := make([]*process, 0, len(c.execs))
	for _, p := range c.execs {
		all = append(all, p)
	}
	c.mu.Unlock()
	started := all[:0]
	for _, p := range all {
		p.gate.Lock() // a start that is under way
		state, _ := p.look()
		p.gate.Unlock()
		if state != created {
			started = append(started, p)
		}
	}
	return started
}

// running lists the execs that have not ended.
func (c *container) running() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*process
	for _, p := range c.execs {
		if state, _ := p.look(); state == running {
			all = append(all, p)
		}
	}
	return all
}

// Connect says who is who.
func (s *service) Connect(_ context.Context, r *task.ConnectRequest) (*task.ConnectResponse, error) {
	resp := &task.ConnectResponse{ShimPid: uint32(os.Getpid()), Version: "v2"}
	if c, err := s.container(r.ID); err == nil {
		_, pid := c.init.look()
		resp.TaskPid = uint32(pid)
		return resp, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.sandbox; b != nil && b.rc != nil && b.id == r.ID {
		resp.TaskPid = uint32(b.rc.Pid())
	}
	return resp, nil
}

// Shutdown ends the server, unless there is a container or a sandbox.
func (s *service) Shutdown(context.Context, *task.ShutdownRequest) (*emptypb.Empty, error) {
	s.exitIfIdle()
	return &emptypb.Empty{}, nil
}

func (s *service) exitIfIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers)+len(s.creating) == 0 && s.sandbox == nil {
		s.exit()
	}
}

// Checkpoint does not exist yet.
func (s *service) Checkpoint(context.Context, *task.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, status.Error(codes.Unimplemented, "lucid cannot save the state of a container yet")
}
