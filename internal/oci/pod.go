package oci

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Annotations by which the callers of a runtime say what belongs together:
// containerd's CRI plugin (pkg/cri/annotations), cri-o (pkg/annotations), and
// containerd's own for grouping shims of runc.
const (
	criContainerType = "io.kubernetes.cri.container-type"
	criSandboxID     = "io.kubernetes.cri.sandbox-id"
	criCPUPeriod     = "io.kubernetes.cri.sandbox-cpu-period" // µs
	criCPUQuota      = "io.kubernetes.cri.sandbox-cpu-quota"  // µs
	criMemory        = "io.kubernetes.cri.sandbox-memory"     // bytes

	crioContainerType = "io.kubernetes.cri-o.ContainerType"
	crioSandboxID     = "io.kubernetes.cri-o.SandboxID"

	groupAnnotation = "io.containerd.runc.v2.group"
)

// Role is what a container is to others.
type Role int

// The roles.
const (
	// Alone: it has a VM to itself.
	Alone Role = iota
	// Sandbox: it is a pod, and has no process of its own.
	Sandbox
	// Member: it joins the pod of a sandbox container, by the ID of that.
	Member
	// Grouped: it shares a VM with others of the same group, of which the
	// first one makes it.
	Grouped
)

// RoleOf reads a container's annotations. name is the ID of the sandbox container, or
// the name of the group; it is empty for one that is alone.
func RoleOf(annotations map[string]string, id string) (role Role, name string) {
	for _, a := range []struct{ kind, id string }{{criContainerType, criSandboxID}, {crioContainerType, crioSandboxID}} {
		switch kind, sandbox := annotations[a.kind], annotations[a.id]; {
		case kind == "sandbox":
			return Sandbox, id
		case kind == "container" && sandbox != "":
			return Member, sandbox
		}
	}
	if group := annotations[groupAnnotation]; group != "" {
		return Grouped, group
	}
	return Alone, ""
}

// Pod is what a container has to know of the pod that it joins. A nil one is
// that of a container alone.
type Pod struct {
	// Members are the containers that can be asked for by /proc/PID/ns/TYPE, by the pid
	// of their process on the host. The sandbox has the ID "".
	Members map[int]string `json:"-"`
	// Namespaces are the paths of the sandbox's own specification by their type.
	Namespaces map[specs.LinuxNamespaceType]string `json:"namespaces,omitempty"`
	// SharedMemory is what the sandbox has mounted at /dev/shm; empty if nothing.
	SharedMemory string `json:"sharedMemory,omitempty"`
}

// NewPod reads what counts in the specification of a sandbox. Members is empty.
func NewPod(spec *specs.Spec) *Pod {
	p := &Pod{Members: map[int]string{}, Namespaces: map[specs.LinuxNamespaceType]string{}}
	if spec.Linux != nil {
		for _, n := range spec.Linux.Namespaces {
			if n.Path != "" {
				p.Namespaces[n.Type] = n.Path
			}
		}
	}
	for _, m := range spec.Mounts {
		if filepath.Clean(m.Destination) == "/dev/shm" && IsBind(m) {
			p.SharedMemory = filepath.Clean(m.Source)
		}
	}
	return p
}

// SplitAs is what a container of that role splits into: with a pod SplitMember, without one SplitSandbox or Split.
func SplitAs(role Role, spec *specs.Spec, bundle string, pod *Pod) (*Plan, error) {
	switch {
	case role == Sandbox:
		return SplitSandbox(spec)
	case pod != nil:
		return SplitMember(spec, bundle, pod)
	default:
		return Split(spec, bundle)
	}
}

// sharesMemory says whether a bind mount is the pod's shared memory.
func (p *Pod) sharesMemory(m specs.Mount) bool {
	return p != nil && p.SharedMemory != "" && filepath.Clean(m.Source) == p.SharedMemory
}

// Paths of namespaces in the guest's part of a plan. They are those of package
// wire.
const (
	podNamespace       = "/pod"
	containerNamespace = "/container/"
)

// sharable are the namespaces that containers of a pod can have in common.
var sharable = []specs.LinuxNamespaceType{
	specs.UTSNamespace, specs.IPCNamespace, specs.NetworkNamespace, specs.PIDNamespace,
}

// shareNamespaces says in the guest's words which namespaces a container joins.
func (p *Pod) shareNamespaces(guest *specs.Spec, spec *specs.Spec) error {
	if spec.Linux == nil {
		return nil
	}
	guest.Linux.Namespaces = nil
	for i, n := range spec.Linux.Namespaces {
		switch {
		case p == nil && n.Type == specs.NetworkNamespace:
			continue // the whole guest is one network namespace: that of the container
		case n.Path == "":
		case p == nil || !slices.Contains(sharable, n.Type):
			return cannotJoin(i, n)
		default:
			id, ok := p.find(n)
			switch {
			case !ok && n.Type == specs.NetworkNamespace:
				n.Path = podNamespace // some have it from a file of their own; the process on the host is there
			case !ok:
				return cannotJoin(i, n)
			case id == "":
				n.Path = podNamespace
			default:
				n.Path = containerNamespace + id
			}
		}
		guest.Linux.Namespaces = append(guest.Linux.Namespaces, n)
	}
	return nil
}

func cannotJoin(i int, n specs.LinuxNamespace) error {
	return fieldErr(fmt.Sprintf("linux.namespaces[%d].path", i), "a container in a VM cannot join the %s namespace %s of the host", n.Type, n.Path)
}

// find tells whose namespace a path is; an empty ID is the pod's.
func (p *Pod) find(n specs.LinuxNamespace) (id string, ok bool) {
	if n.Path == p.Namespaces[n.Type] {
		return "", true
	}
	name := string(n.Type)
	if n.Type == specs.NetworkNamespace {
		name = "net"
	}
	rest, isProc := strings.CutPrefix(n.Path, "/proc/")
	number, isNS := strings.CutSuffix(rest, "/ns/"+name)
	pid, err := strconv.Atoi(number)
	if !isProc || !isNS || err != nil {
		return "", false
	}
	id, ok = p.Members[pid]
	return id, ok
}

// SplitMember is Split for a container that joins a pod.
func SplitMember(spec *specs.Spec, bundle string, pod *Pod) (*Plan, error) {
	p, err := split(spec, bundle, pod)
	if err != nil {
		return nil, err
	}
	if r := p.Host.Resources; r != nil {
		p.Host.Resources = nil // the sandbox's process does all that there is to limit
		var out fields
		out.add(r.BlockIO != nil, "linux.resources.blockIO")
		out.add(r.CPU != nil && r.CPU.Cpus != "", "linux.resources.cpu.cpus")
		out.add(r.CPU != nil && r.CPU.Mems != "", "linux.resources.cpu.mems")
		p.Ignored = append(p.Ignored, out...)
	}
	if spec.VM != nil {
		p.Ignored = append(p.Ignored, "vm")
	}
	return p, nil
}

// defaultPodMemory is what a pod has for all its containers when nobody says.
const defaultPodMemory uint64 = 512 << 20

// SplitSandbox is Split for the sandbox container of a pod, or for the first of a group: a
// VM without a container. Its files are not looked at: a pause image has no
// use.
func SplitSandbox(spec *specs.Spec) (*Plan, error) {
	vm, notes, err := sizeOf(spec, DefaultVCPUs, defaultPodMemory)
	if err != nil {
		return nil, err
	}
	p := &Plan{VM: vm, Ignored: notes, Placeholder: true}
	if err := p.splitLinux(spec); err != nil {
		return nil, err
	}
	p.Seccomp = nil
	// Those are for a process that does nothing, such as two shares of a CPU, and here it does
	// everything.
	p.Host.OOMScoreAdj = nil
	if r := p.Host.Resources; r != nil {
		p.Host.Resources = &specs.LinuxResources{BlockIO: r.BlockIO}
	}
	p.Guest = specs.Spec{Hostname: spec.Hostname, Domainname: spec.Domainname}
	if spec.Linux != nil && len(spec.Linux.Sysctl) > 0 {
		p.Guest.Linux = &specs.Linux{Sysctl: maps.Clone(spec.Linux.Sysctl)}
	}
	return p, nil
}

// sizeFromPod sizes a VM by what Kubernetes says of the whole pod.
func sizeFromPod(vm *VM, annotations map[string]string) (notes []string, err error) {
	numbers := map[string]int64{}
	for _, key := range []string{criCPUPeriod, criCPUQuota, criMemory} {
		text := annotations[key]
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fieldErr("annotations["+key+"]", "%q is not a number", text)
		}
		numbers[key] = n
	}
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	if n := numbers[criCPUQuota]; n > 0 {
		r.CPU.Quota = &n
	}
	if n := numbers[criCPUPeriod]; n > 0 {
		period := uint64(n)
		r.CPU.Period = &period
	}
	if n := numbers[criMemory]; n > 0 {
		r.Memory.Limit = &n
	}
	return sizeFromResources(vm, &specs.Linux{Resources: r}), nil
}
