package shim

// Which VM a container gets (docs/flows/pods.md):
//
//	alone     one to itself
//	sandbox   one that members join; it has no process of its own
//	member    its sandbox's, which has to be here: `start` has given containerd the address
//	any       the sandbox service's, if that has made one: that containerd asks here says that it belongs there
//	grouped   that of its group. The first one's Create makes it, and the last one's Delete
//	          takes it away: containerd knows nothing of it

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// pod is the VM that the containers of this shim share.
type pod struct {
	id    string        // of the container that is it
	group string        // empty for a sandbox's
	api   bool          // made by the sandbox service, not by a container
	files []specs.Mount // what its containers have in /etc, if Kubernetes asked for it
	rc    *runtime.Container
}

// place is where a container is to be.
type place struct {
	role oci.Role
	pod  string   // ID; empty: a VM of its own
	spec *oci.Pod // with a pod
}

// place finds the place of a container, and makes the VM of a group.
func (s *service) place(ctx context.Context, r *task.CreateTaskRequest, spec *specs.Spec) (*place, error) {
	role, name := oci.RoleOf(spec.Annotations, r.ID)
	s.podMu.Lock()
	defer s.podMu.Unlock()
	switch {
	case role == oci.Alone && s.pod != nil && s.pod.api:
		role = oci.Member
	case role == oci.Member:
		if s.pod == nil || s.pod.group != "" || s.pod.id != name {
			return nil, status.Errorf(codes.FailedPrecondition, "sandbox %s is not here", name)
		}
	case role == oci.Grouped:
		if s.pod == nil {
			if err := s.openGroup(ctx, r, spec, name); err != nil {
				return nil, err
			}
		}
		if s.pod.group != name {
			return nil, status.Errorf(codes.FailedPrecondition, "group %s is not here", name)
		}
	default:
		if s.pod != nil || s.others(r.ID) {
			return nil, status.Error(codes.FailedPrecondition, "this shim has a VM already, for other containers")
		}
		return &place{role: role}, nil
	}
	known, err := s.rt.PodFor(s.pod.id)
	if err != nil {
		return nil, err
	}
	if s.pod.api {
		shareMemory(spec, known)
		addPodFiles(spec, s.pod.files)
	}
	return &place{role: role, pod: s.pod.id, spec: known}, nil
}

// others says whether there are, or are about to be, other containers.
func (s *service) others(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.containers) + len(s.creating)
	if s.creating[id] {
		n--
	}
	return n > 0
}

// open makes a container the pod of this shim.
func (s *service) open(p *pod) {
	s.podMu.Lock()
	defer s.podMu.Unlock()
	s.pod = p
}

// close forgets a sandbox that has been deleted.
func (s *service) close(id string) {
	s.podMu.Lock()
	defer s.podMu.Unlock()
	if s.pod != nil && s.pod.id == id {
		s.pod = nil
	}
}

// groupPrefix begins the IDs of the VMs of groups.
const groupPrefix = "group-"

// groupVM is the ID of a group's VM.
func groupVM(group string) string {
	return groupPrefix + fmt.Sprintf("%x", sha256.Sum256([]byte(group)))[:20]
}

// openGroup makes a VM for a group, of the size that its first container asks for.
// Precondition: podMu is held.
func (s *service) openGroup(ctx context.Context, r *task.CreateTaskRequest, spec *specs.Spec, group string) (err error) {
	id := groupVM(group)
	cfg, err := s.createConfig(&task.CreateTaskRequest{ID: id, Bundle: r.Bundle}, spec, &place{role: oci.Sandbox})
	if err != nil {
		return err
	}
	// These are the container's.
	cfg.Plan.Host.Hooks, cfg.Plan.Host.CgroupsPath, cfg.Plan.Host.Resources, cfg.Plan.Guest.Linux = nil, "", nil, nil
	cfg.Spec = &specs.Spec{Version: spec.Version}
	rc, err := s.boot(ctx, cfg)
	if err != nil {
		return err
	}
	if err := rc.Start(); err != nil {
		return errors.Join(err, s.rt.Discard(rc))
	}
	go rc.Wait()
	s.pod = &pod{id: id, group: group, rc: rc}
	return nil
}

// boot makes a VM without a process, which has no stdio.
func (s *service) boot(ctx context.Context, cfg *runtime.CreateConfig) (*runtime.Container, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	cfg.Stdio = [3]*os.File{null, null, null}
	return s.rt.Create(ctx, *cfg)
}

// leaveGroup takes the VM of a group away when its last container, id, goes.
func (s *service) leaveGroup(id string) {
	s.podMu.Lock()
	defer s.podMu.Unlock()
	if s.pod == nil || s.pod.group == "" || s.others(id) {
		return
	}
	if err := s.rt.Discard(s.pod.rc); err != nil {
		s.log.Warn("delete the VM of a group", "group", s.pod.group, "err", err)
	}
	s.pod = nil
}

// isGroupVM says whether an ID is that of a group's VM.
func isGroupVM(id string) bool { return strings.HasPrefix(id, groupPrefix) }
