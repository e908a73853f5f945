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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lucid-containers/lucid/internal/assets"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
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
	s.creating = false
	if err == nil {
		s.c = c
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

// claim reserves this shim for a container.
func (s *service) claim(r *task.CreateTaskRequest) error {
	switch {
	case r.Checkpoint != "" || r.ParentCheckpoint != "":
		return status.Error(codes.Unimplemented, "lucid cannot restore a container yet")
	case !filepath.IsAbs(r.Bundle):
		return status.Errorf(codes.InvalidArgument, "bundle %q is not an absolute path", r.Bundle)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.creating || s.c != nil && s.c.id == r.ID:
		return status.Errorf(codes.AlreadyExists, "container %s already exists", r.ID)
	case s.c != nil:
		return status.Errorf(codes.Unimplemented, "container %s has this VM: several containers in one are not supported yet", s.c.id)
	}
	s.creating = true
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
	cfg, err := createConfig(r)
	if err != nil {
		return nil, err
	}
	cfg.Debug = s.call.debug
	fallback, err := runtime.TemplateFromEnv()
	if err != nil {
		return nil, err
	}
	cfg.Template = cmp.Or(cfg.Plan.VM.Template, fallback)
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
	return c, nil
}

// createConfig reads the bundle.
func createConfig(r *task.CreateTaskRequest) (*runtime.CreateConfig, error) {
	spec, err := oci.Load(r.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process.Terminal != r.Terminal {
		return nil, status.Errorf(codes.InvalidArgument, "process.terminal is %t in config.json and %t in the request", spec.Process.Terminal, r.Terminal)
	}
	plan, err := oci.Split(spec, r.Bundle)
	if err != nil {
		return nil, err
	}
	kernel, err := assets.Find(assets.Kernel, "", plan.VM.Kernel)
	if err != nil {
		return nil, err
	}
	initramfs, err := assets.Find(assets.Initramfs, "", plan.VM.Initrd)
	if err != nil {
		return nil, err
	}
	return &runtime.CreateConfig{
		ID: r.ID, Bundle: r.Bundle, Spec: spec, Plan: plan, Kernel: kernel, Initramfs: initramfs, Terminal: r.Terminal,
		// The VM must not outlive the only process that knows of it.
		Bound: true,
	}, nil
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
	go func() {
		// The VM cannot end before its output is out.
		_ = c.rc.AwaitEnd() // an error means that it is gone
		c.init.streams.relax()
	}()
	code := c.rc.Wait()
	p := c.init
	p.gate.Lock()
	defer p.gate.Unlock()
	// Its other processes are gone with the VM: their exits come first.
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	for _, e := range c.lastExecs() {
		if err := e.wait(ctx); err != nil {
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
