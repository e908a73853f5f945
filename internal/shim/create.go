package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lucid-containers/lucid/internal/assets"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/systemd"
)

// rootfsDir is where the mounts of Create go, in the bundle.
const rootfsDir = "rootfs"

// Create builds the container, all but its process.
func (s *service) Create(ctx context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	if err := s.claim(r); err != nil {
		return nil, err
	}
	c, err := s.create(ctx, r)
	s.mu.Lock()
	delete(s.creating, r.ID)
	if err == nil {
		s.containers[r.ID] = c
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	_, pid := c.init.look()
	s.events.publish("/tasks/create", &apievents.TaskCreate{
		ContainerID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, Pid: uint32(pid),
		IO: &apievents.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	go s.routineInit(c)
	return &task.CreateTaskResponse{Pid: uint32(pid)}, nil
}

// claim reserves an ID.
func (s *service) claim(r *task.CreateTaskRequest) error {
	switch {
	case r.Checkpoint != "" || r.ParentCheckpoint != "":
		return status.Error(codes.Unimplemented, "lucid cannot restore a container yet")
	case !filepath.IsAbs(r.Bundle):
		return status.Errorf(codes.InvalidArgument, "bundle %q is not an absolute path", r.Bundle)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.creating[r.ID] || s.containers[r.ID] != nil {
		return status.Errorf(codes.AlreadyExists, "container %s already exists", r.ID)
	}
	s.creating[r.ID] = true
	return nil
}

// create leaves nothing behind when it fails.
func (s *service) create(ctx context.Context, r *task.CreateTaskRequest) (_ *container, err error) {
	if err := mountRootfs(r.Rootfs, r.Bundle); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if e := unmountRootfs(r.Bundle); e != nil {
				s.log.Warn("unmount", "err", e)
			}
		}
	}()
	spec, err := loadSpec(r)
	if err != nil {
		return nil, err
	}
	place, err := s.place(ctx, r, spec)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.leaveGroup(r.ID)
		}
	}()
	cfg, err := s.createConfig(r, spec, place)
	if err != nil {
		return nil, err
	}
	for _, field := range cfg.Plan.Ignored {
		s.log.Info(oci.NoEffect(field))
	}
	io := ioConfig{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal}
	streams, err := s.openStreams(io, r.ID, cfg.Spec.Process.ConsoleSize)
	if err != nil {
		return nil, err
	}
	cfg.Stdio = streams.child
	rc, err := s.rt.Create(ctx, *cfg)
	streams.closeChild()
	if err != nil {
		streams.close()
		return nil, err
	}
	streams.start()
	c := &container{id: r.ID, bundle: r.Bundle, rc: rc, execs: map[string]*process{}}
	c.init = newProcess(c, "", io)
	c.init.pid, c.init.streams = rc.Pid(), streams
	if place.role == oci.Sandbox {
		s.open(&pod{id: r.ID, rc: rc})
	}
	return c, nil
}

// loadSpec reads the bundle.
func loadSpec(r *task.CreateTaskRequest) (*specs.Spec, error) {
	spec, err := oci.Load(r.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process.Terminal != r.Terminal {
		return nil, status.Errorf(codes.InvalidArgument, "process.terminal is %t in config.json and %t in the request", spec.Process.Terminal, r.Terminal)
	}
	return spec, nil
}

// createConfig says what to create, in the VM that place is.
func (s *service) createConfig(r *task.CreateTaskRequest, spec *specs.Spec, at *place) (*runtime.CreateConfig, error) {
	plan, err := oci.SplitAs(at.role, spec, r.Bundle, at.spec)
	if err != nil {
		return nil, err
	}
	cfg := &runtime.CreateConfig{
		ID: r.ID, Bundle: r.Bundle, Spec: spec, Plan: plan, Pod: at.pod, Terminal: r.Terminal, Debug: s.call.debug,
		// The VM must not outlive the only process that knows of it.
		Bound: true,
		// A kubelet with the systemd driver says so by the form alone.
		SystemdCgroup: systemd.IsScopePath(plan.Host.CgroupsPath) && systemd.Running() == nil,
	}
	if at.pod != "" {
		return cfg, nil
	}
	fallback, err := runtime.TemplateFromEnv()
	if err != nil {
		return nil, err
	}
	cfg.Template = cmp.Or(plan.VM.Template, fallback)
	if cfg.Kernel, err = assets.Find(assets.Kernel, "", plan.VM.Kernel); err != nil {
		return nil, err
	}
	cfg.Initramfs, err = assets.Find(assets.Initramfs, "", plan.VM.Initrd)
	return cfg, err
}

// mountRootfs mounts what a snapshotter has prepared. Without mounts, root.path
// is elsewhere.
func mountRootfs(mounts []*types.Mount, bundle string) error {
	if len(mounts) == 0 {
		return nil
	}
	rootfs := filepath.Join(bundle, rootfsDir)
	if err := os.Mkdir(rootfs, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := mount.All(mount.FromProto(mounts), rootfs); err != nil {
		return errors.Join(fmt.Errorf("mount the root file system: %w", err), unmountRootfs(bundle))
	}
	return nil
}

// routineInit waits for the container's end and makes it known.
func (s *service) routineInit(c *container) {
	ctx, cancel := context.WithCancel(context.Background())
	over, told := make(chan struct{}), make(chan struct{})
	go func() {
		// The VM cannot end before its output is out.
		_ = c.rc.AwaitEnd() // an error means that it is gone
		close(over)
		c.init.streams.relax()
	}()
	go func() {
		defer close(told)
		s.routineOOM(ctx, c, over)
	}()
	code := c.rc.Wait()
	select { // an OOM kill is told before the exit that it makes
	case <-told:
	case <-time.After(oomGrace):
	}
	p := c.init
	p.gate.Lock()
	defer p.gate.Unlock()
	defer cancel() // while the gate is held: no OOM kill is told after the exit
	// Its other processes are gone with the VM: their exits come first.
	drain, drained := context.WithTimeout(ctx, drainLimit)
	defer drained()
	for _, e := range c.lastExecs() {
		if err := e.wait(drain); err != nil {
			s.log.Warn("a process outlives its container", "exec", e.execID)
		}
	}
	s.ended(p, code)
}

// ended makes the exit of a process known: first the event, so that whoever
// sees the state has the event before. Precondition: p.gate is held.
func (s *service) ended(p *process, code int) {
	_, pid := p.look()
	id, at := p.execID, time.Now()
	if id == "" {
		id = p.container.id
	}
	s.events.publish("/tasks/exit", &apievents.TaskExit{
		ContainerID: p.container.id, ID: id, Pid: uint32(pid), ExitStatus: uint32(code), ExitedAt: timestamppb.New(at),
	})
	p.finish(code, at)
}
