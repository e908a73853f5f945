package shim

import (
	"context"
	"encoding/json"

	"github.com/containerd/cgroups/v3/cgroup2/stats"
	apievents "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lucid-containers/lucid/internal/wire"
)

// State describes a process.
func (s *service) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return p.describe(), nil
}

// Wait returns when a process has ended.
func (s *service) Wait(ctx context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := p.wait(ctx); err != nil {
		return nil, err
	}
	resp := &task.WaitResponse{}
	resp.ExitStatus, resp.ExitedAt = p.exit()
	return resp, nil
}

// Kill sends a signal. With all it is no different: the container's processes
// end with its first one.
func (s *service) Kill(_ context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, p.signal(unix.Signal(r.Signal))
}

// Delete takes away a process that has stopped, or was never started.
func (s *service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	state, _ := p.look()
	switch {
	case state == running:
		return nil, status.Error(codes.FailedPrecondition, "cannot delete a running process")
	case r.ExecID != "":
		s.deleteExec(p)
	default:
		if err := s.deleteContainer(ctx, p); err != nil {
			return nil, err
		}
	}
	_, pid := p.look()
	resp := &task.DeleteResponse{Pid: uint32(pid)}
	resp.ExitStatus, resp.ExitedAt = p.exit()
	return resp, nil
}

func (s *service) deleteExec(p *process) {
	p.release()
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, p.execID)
}

func (s *service) deleteContainer(ctx context.Context, p *process) error {
	c := p.container
	if state, _ := p.look(); state == stopped {
		// While the state directory is there: the sandbox's last word may be on its way.
		p.release()
	}
	if err := s.rt.Discard(c.rc); err != nil {
		return err
	}
	if err := p.wait(ctx); err != nil { // of a created one, which is killed by that
		return err
	}
	p.release()
	if err := unmountRootfs(c.bundle); err != nil {
		return err
	}
	s.mu.Lock()
	last := s.containers[c.id] == c // of two who delete it
	if last {
		delete(s.containers, c.id)
	}
	s.mu.Unlock()
	if last {
		s.close(c.id)
		s.leaveGroup(c.id)
		_, pid := p.look()
		e := &apievents.TaskDelete{ContainerID: c.id, Pid: uint32(pid)}
		e.ExitStatus, e.ExitedAt = p.exit()
		s.events.publish("/tasks/delete", e)
	}
	return nil
}

// Pids lists the processes on the host: what runs in the VM has no number here. The container's own is there until Delete,
// also when it has ended: a containerd of 2.0 and later that is restarted takes a shim without any for a leaked one, ends it,
// and its container's exit status would be lost.
func (s *service) Pids(_ context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	_, pid := c.init.look()
	resp := &task.PidsResponse{Processes: []*tasktypes.ProcessInfo{{Pid: uint32(pid)}}}
	for _, e := range c.running() {
		_, pid := e.look()
		info, err := toAny(&options.ProcessDetails{ExecID: e.execID}) // runc's: the only form that clients know
		if err != nil {
			return nil, err
		}
		resp.Processes = append(resp.Processes, &tasktypes.ProcessInfo{Pid: uint32(pid), Info: info})
	}
	return resp, nil
}

// Pause stops the CPUs of the VM.
func (s *service) Pause(_ context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.rc.Pause(); err != nil {
		return nil, err
	}
	s.events.publish("/tasks/paused", &apievents.TaskPaused{ContainerID: r.ID})
	return &emptypb.Empty{}, nil
}

// Resume lets them go on.
func (s *service) Resume(_ context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.rc.Resume(); err != nil {
		return nil, err
	}
	s.events.publish("/tasks/resumed", &apievents.TaskResumed{ContainerID: r.ID})
	return &emptypb.Empty{}, nil
}

// ResizePty sets the window size of a terminal.
func (s *service) ResizePty(_ context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	const most = 1<<16 - 1 // of struct winsize
	if r.Width > most || r.Height > most {
		return nil, status.Errorf(codes.InvalidArgument, "a terminal of %d by %d characters", r.Width, r.Height)
	}
	streams := p.stdio()
	if streams == nil {
		return &emptypb.Empty{}, nil // it is not started yet, and is sized when it is
	}
	return &emptypb.Empty{}, streams.resize(uint16(r.Width), uint16(r.Height))
}

// CloseIO ends a process's stdin.
func (s *service) CloseIO(_ context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if streams := p.stdio(); r.Stdin && streams != nil {
		streams.closeStdin()
	}
	return &emptypb.Empty{}, nil
}

// Update changes limits, inside the VM and of its cgroup.
func (s *service) Update(_ context.Context, r *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	var want *specs.LinuxResources
	if err := json.Unmarshal(r.Resources.GetValue(), &want); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "resources: %v", err)
	}
	if want == nil {
		return nil, status.Error(codes.InvalidArgument, "resources: null")
	}
	return &emptypb.Empty{}, c.rc.Update(want)
}

// Stats are the counters of the container's cgroup in the VM. They have the form of
// cgroup v2 whatever the host has, for the guest has that.
func (s *service) Stats(_ context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	got, err := c.rc.Stats()
	if err != nil {
		return nil, err
	}
	a, err := toAny(metrics(got))
	return &task.StatsResponse{Stats: a}, err
}

func metrics(s *wire.StatsResult) *stats.Metrics {
	limit := func(n uint64) uint64 {
		if n == 0 { // none; the kernel's largest number stands for it
			return ^uint64(0)
		}
		return n
	}
	return &stats.Metrics{
		CPU: &stats.CPUStat{
			UsageUsec: s.CPUUsageUS, UserUsec: s.CPUUserUS, SystemUsec: s.CPUSystemUS,
			NrPeriods: s.CPUPeriods, NrThrottled: s.CPUThrottled, ThrottledUsec: s.CPUThrottledUS,
		},
		Memory: &stats.MemoryStat{
			Usage: s.MemoryCurrent, UsageLimit: limit(s.MemoryMax), MaxUsage: s.MemoryPeak,
			File: s.MemoryFile, InactiveFile: s.MemoryInactive,
		},
		MemoryEvents: &stats.MemoryEvents{OomKill: s.MemoryOOMKills},
		Pids:         &stats.PidsStat{Current: s.PidsCurrent, Limit: s.PidsMax},
	}
}

// toAny packs a message as containerd does it: the URL is the bare name.
func toAny(m proto.Message) (*anypb.Any, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: data}, nil
}
