package shim

// The sandbox service of containerd 2 (`sandboxer = "shim"`): containerd asks for the VM of a pod itself, and there is no task
// and no pause image for it. Its containers join the VM as those of other pods do (pod.go).
//
//	CreateSandbox ─▶ created ─StartSandbox─▶ ready ─StopSandbox, or its own end─▶ stopped ─ShutdownSandbox─▶ gone
//
// api/runtime/sandbox/v1/sandbox.proto has the numbers of the fields.

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	goruntime "runtime"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// sandbox is what CreateSandbox has made.
type sandbox struct {
	id      string
	rc      *runtime.Container // nil while it is made; protected by service.mu
	spec    *specs.Spec
	created time.Time
	exited  chan struct{} // closed when the VM has ended; then the rest is set
	code    int
	ended   time.Time
}

// stopTimeout is how long a VM may take to write its files back when containerd does not say.
const stopTimeout = 30 * time.Second

// States of a sandbox, in the words of the CRI, which passes them on.
const (
	sandboxReady    = "SANDBOX_READY"
	sandboxNotReady = "SANDBOX_NOTREADY"
)

// registerSandbox offers the sandbox service. UpdateSandbox is not there, as a shim may have it.
func registerSandbox(server *ttrpc.Server, s *service) {
	server.RegisterService("containerd.runtime.sandbox.v1.Sandbox", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"CreateSandbox":   rawMethod(s.createSandbox),
		"StartSandbox":    rawMethod(s.onSandbox(s.startSandbox)),
		"Platform":        rawMethod(s.onSandbox(s.platform)),
		"StopSandbox":     rawMethod(s.onSandbox(s.stopSandbox)),
		"WaitSandbox":     rawMethod(s.onSandbox(s.waitSandbox)),
		"SandboxStatus":   rawMethod(s.onSandbox(s.sandboxStatus)),
		"PingSandbox":     rawMethod(s.onSandbox(s.pingSandbox)),
		"ShutdownSandbox": rawMethod(s.shutdown),
		"SandboxMetrics":  rawMethod(s.onSandbox(s.sandboxMetrics)),
	}})
}

// onSandbox finds the sandbox that a request is about: field 1 of each.
func (s *service) onSandbox(call func(context.Context, *sandbox, message) ([]byte, error)) func(context.Context, message) ([]byte, error) {
	return func(ctx context.Context, r message) ([]byte, error) {
		s.mu.Lock()
		b := s.sandbox
		known := b != nil && b.rc != nil && b.id == r.text(1)
		s.mu.Unlock()
		if !known {
			return nil, status.Errorf(codes.NotFound, "sandbox %s does not exist", r.text(1))
		}
		return call(ctx, b, r)
	}
}

// createSandbox boots the VM.
func (s *service) createSandbox(ctx context.Context, r message) (_ []byte, err error) {
	b := &sandbox{id: r.text(1), created: time.Now(), exited: make(chan struct{})}
	bundle := r.text(2)
	if !filepath.IsAbs(bundle) {
		return nil, status.Errorf(codes.InvalidArgument, "bundle %q is not an absolute path", bundle)
	}
	config, err := podConfigOf(r)
	if err == nil {
		b.spec, err = sandboxSpec(b.id, bundle, r, config)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// Containers that come meanwhile wait.
	s.podMu.Lock()
	defer s.podMu.Unlock()
	if err := s.claimSandbox(b); err != nil {
		return nil, err
	}
	pod, err := s.bootSandbox(ctx, b, bundle, config)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.sandbox = nil
		return nil, err
	}
	b.rc, s.pod = pod.rc, pod
	go b.routineWait()
	return nil, nil
}

// bootSandbox makes the VM, and the files of a pod of Kubernetes.
func (s *service) bootSandbox(ctx context.Context, b *sandbox, bundle string, config message) (*pod, error) {
	p := &pod{id: b.id, api: true}
	if config != nil {
		var err error
		if p.files, err = writePodFiles(bundle, config); err != nil {
			return nil, err
		}
	}
	cfg, err := s.createConfig(&task.CreateTaskRequest{ID: b.id, Bundle: bundle}, b.spec, &place{role: oci.Sandbox})
	if err != nil {
		return nil, err
	}
	p.rc, err = s.boot(ctx, cfg)
	return p, err
}

// claimSandbox reserves this shim for one.
func (s *service) claimSandbox(b *sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.sandbox != nil:
		return status.Errorf(codes.AlreadyExists, "sandbox %s already exists", s.sandbox.id)
	case len(s.containers)+len(s.creating) > 0 || s.pod != nil:
		return status.Error(codes.FailedPrecondition, "this shim has containers already")
	}
	s.sandbox = b
	return nil
}

// routineWait takes the VM's exit status.
func (b *sandbox) routineWait() {
	b.code = b.rc.Wait()
	b.ended = time.Now()
	close(b.exited)
}

// over says whether the VM has ended.
func (b *sandbox) over() bool {
	select {
	case <-b.exited:
		return true
	default:
		return false
	}
}

// specType is how containerd marks a specification in JSON.
const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

// startSandbox → pid, created_at, spec.
func (s *service) startSandbox(_ context.Context, b *sandbox, _ message) ([]byte, error) {
	if err := b.rc.Start(); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(b.spec)
	if err != nil {
		return nil, err
	}
	out, err := appendTime(appendCount(nil, 1, uint64(b.rc.Pid())), 2, b.created)
	if err != nil {
		return nil, err
	}
	return appendMessage(out, 3, &anypb.Any{TypeUrl: specType, Value: spec})
}

// platform says what containers run on: the guest has the host's architecture.
func (s *service) platform(context.Context, *sandbox, message) ([]byte, error) {
	return appendMessage(nil, 1, &types.Platform{OS: goruntime.GOOS, Architecture: goruntime.GOARCH})
}

// stopSandbox ends the VM and what runs in it, at last by force. Field 2 is how long it may take, in seconds.
func (s *service) stopSandbox(ctx context.Context, b *sandbox, r message) ([]byte, error) {
	patience := stopTimeout
	if n := r.count(2); n > 0 {
		patience = time.Duration(min(n, 1<<20)) * time.Second
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		err := b.rc.Signal(sig)
		if err != nil && !errors.Is(err, runtime.ErrNotRunning) && !errors.Is(err, runtime.ErrNotExist) {
			if sig == unix.SIGKILL {
				return nil, err
			}
			s.log.Warn("the VM does not take SIGTERM", "sandbox", b.id, "err", err) // nobody answers, perhaps: by force then
			continue
		}
		select {
		case <-b.exited:
			return nil, nil
		case <-time.After(patience):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, status.Errorf(codes.DeadlineExceeded, "the VM of sandbox %s does not end", b.id)
}

// waitSandbox → exit_status, exited_at.
func (s *service) waitSandbox(ctx context.Context, b *sandbox, _ message) ([]byte, error) {
	select {
	case <-b.exited:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return appendTime(appendCount(nil, 1, uint64(b.code)), 2, b.ended)
}

// sandboxStatus → sandbox_id, pid, state, info, created_at, exited_at.
func (s *service) sandboxStatus(_ context.Context, b *sandbox, _ message) ([]byte, error) {
	state, ended := sandboxNotReady, time.Time{}
	if b.over() {
		ended = b.ended
	} else if st, err := b.rc.Status(); err == nil && (st == runtime.Running || st == runtime.Paused) {
		state = sandboxReady
	}
	out := appendText(appendCount(appendText(nil, 1, b.id), 2, uint64(b.rc.Pid())), 3, state)
	out, err := appendTime(out, 5, b.created)
	if err != nil {
		return nil, err
	}
	return appendTime(out, 6, ended)
}

// pingSandbox fails if nobody answers for the VM.
func (s *service) pingSandbox(_ context.Context, b *sandbox, _ message) ([]byte, error) {
	if _, err := b.rc.Status(); err != nil {
		return nil, err
	}
	if b.over() {
		return nil, status.Errorf(codes.FailedPrecondition, "the VM of sandbox %s has ended", b.id)
	}
	return nil, nil
}

// shutdown is shutdownSandbox, or ends the server that a CreateSandbox that failed has left.
func (s *service) shutdown(ctx context.Context, r message) ([]byte, error) {
	s.mu.Lock()
	none := s.sandbox == nil
	s.mu.Unlock()
	if none {
		s.exitIfIdle()
		return nil, nil
	}
	return s.onSandbox(s.shutdownSandbox)(ctx, r)
}

// shutdownSandbox takes the VM away, and lets the server end when no container is left.
func (s *service) shutdownSandbox(ctx context.Context, b *sandbox, _ message) ([]byte, error) {
	if err := s.rt.Discard(b.rc); err != nil {
		return nil, err
	}
	select {
	case <-b.exited: // it has been killed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.close(b.id)
	s.mu.Lock()
	if s.sandbox == b {
		s.sandbox = nil
	}
	s.mu.Unlock()
	s.exitIfIdle()
	return nil, nil
}

// sandboxMetrics → metrics: the counters of all containers together.
func (s *service) sandboxMetrics(_ context.Context, b *sandbox, _ message) ([]byte, error) {
	got, err := b.rc.Stats()
	if err != nil {
		return nil, err
	}
	data, err := toAny(metrics(got))
	if err != nil {
		return nil, err
	}
	return appendMessage(nil, 1, &types.Metric{Timestamp: timestamppb.Now(), ID: b.id, Data: data})
}
