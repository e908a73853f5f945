package oci_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/oci"
)

func TestRoleOf(t *testing.T) {
	type labels = map[string]string
	for _, c := range []struct {
		labels labels
		role   oci.Role
		name   string
	}{
		{nil, oci.Alone, ""},
		{labels{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "c1"}, oci.Sandbox, "c1"},
		{labels{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p"}, oci.Member, "p"},
		{labels{"io.kubernetes.cri.container-type": "container"}, oci.Alone, ""},
		{labels{"io.kubernetes.cri.sandbox-id": "p"}, oci.Alone, ""},
		{labels{"io.kubernetes.cri-o.ContainerType": "sandbox"}, oci.Sandbox, "c1"},
		{labels{"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "p"}, oci.Member, "p"},
		{labels{"io.containerd.runc.v2.group": "g"}, oci.Grouped, "g"},
		{labels{"io.containerd.runc.v2.group": "g", "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p"}, oci.Member, "p"},
	} {
		if role, name := oci.RoleOf(c.labels, "c1"); role != c.role || name != c.name {
			t.Errorf("%v: role %d of %q, want %d of %q", c.labels, role, name, c.role, c.name)
		}
	}
}

// podSpec is an example with these namespaces.
func podSpec(t *testing.T, namespaces ...specs.LinuxNamespace) *specs.Spec {
	t.Helper()
	spec := oci.Example()
	spec.Root.Path = t.TempDir()
	spec.Linux.Namespaces = namespaces
	return spec
}

func TestNamespacesOfAPod(t *testing.T) {
	sandbox := oci.Example()
	sandbox.Linux.Namespaces = []specs.LinuxNamespace{
		{Type: "network", Path: "/run/netns/x"}, {Type: "ipc", Path: "/run/ipcns/x"}, {Type: "uts"}, {Type: "pid"},
	}
	pod := oci.NewPod(sandbox)
	pod.Members = map[int]string{100: "", 200: "c2"}
	for _, c := range []struct {
		kind       specs.LinuxNamespaceType
		path, want string
	}{
		{"network", "", ""}, // its own
		{"network", "/proc/100/ns/net", "/pod"},
		{"network", "/run/netns/x", "/pod"},
		{"network", "/run/netns/other", "/pod"},
		{"network", "/proc/200/ns/net", "/container/c2"},
		{"ipc", "/proc/100/ns/ipc", "/pod"},
		{"ipc", "/run/ipcns/x", "/pod"},
		{"uts", "/proc/200/ns/uts", "/container/c2"},
		{"pid", "/proc/100/ns/pid", "/pod"},
		{"pid", "/proc/200/ns/pid", "/container/c2"},
		{"mount", "", ""},
	} {
		plan, err := oci.SplitMember(podSpec(t, specs.LinuxNamespace{Type: c.kind, Path: c.path}), "/", pod)
		if err != nil {
			t.Errorf("%s %s: %v", c.kind, c.path, err)
			continue
		}
		want := []specs.LinuxNamespace{{Type: c.kind, Path: c.want}}
		if got := plan.Guest.Linux.Namespaces; !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s: %v, want %v", c.kind, c.path, got, want)
		}
	}
	for _, c := range []struct {
		pod  *oci.Pod
		kind specs.LinuxNamespaceType
		path string
	}{
		{nil, "pid", "/proc/100/ns/pid"},
		{nil, "ipc", "/proc/100/ns/ipc"},
		{pod, "ipc", "/proc/300/ns/ipc"}, // a stranger's
		{pod, "ipc", "/proc/100/ns/uts"},
		{pod, "pid", "/proc/100/ns/../ns/pid"},
		{pod, "pid", "/proc/self/ns/pid"},
		{pod, "uts", "/run/ipcns/x"},
		{pod, "user", "/proc/100/ns/user"},
		{pod, "mount", "/proc/200/ns/mount"},
		{pod, "cgroup", "/proc/200/ns/cgroup"},
	} {
		spec := podSpec(t, specs.LinuxNamespace{Type: "uts"}, specs.LinuxNamespace{Type: c.kind, Path: c.path})
		spec.Linux.Namespaces = spec.Linux.Namespaces[1:]
		_, err := oci.SplitMember(spec, "/", c.pod)
		var field *oci.FieldError
		if !errors.As(err, &field) || field.Field != "linux.namespaces[0].path" {
			t.Errorf("%s %s: %v, want an error of the path", c.kind, c.path, err)
		}
	}
}

// The pod's /dev/shm is the guest's; another directory that is mounted there is the host's.
func TestSharedMemory(t *testing.T) {
	shm, other := t.TempDir(), t.TempDir()
	sandbox := oci.Example()
	sandbox.Mounts = append(sandbox.Mounts, specs.Mount{Destination: "/dev/shm", Source: shm, Type: "bind"})
	pod := oci.NewPod(sandbox)
	for source, shared := range map[string]bool{shm: true, other: false} {
		spec := podSpec(t)
		spec.Mounts = []specs.Mount{{Destination: "/dev/shm", Source: source, Type: "bind", Options: []string{"rbind"}}}
		plan, err := oci.SplitMember(spec, "/", pod)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(plan.Host.SharedMemory) == 1; got != shared || len(plan.Host.Binds) == 1 == shared {
			t.Errorf("shared %t, want %t, with exports %v", got, shared, plan.Host.Binds)
		}
	}
}

func TestSplitSandbox(t *testing.T) {
	spec := oci.Example()
	spec.Root.Path = "/no/such/pause" // nobody looks
	spec.Hostname = "pod"
	spec.Linux.Sysctl = map[string]string{"net.core.somaxconn": "99"}
	for _, c := range []struct {
		annotations map[string]string
		vcpus       int
		memory      uint64
	}{
		{nil, 1, 512 << 20},
		{map[string]string{"io.kubernetes.cri.sandbox-memory": "268435456"}, 1, 384 << 20},
		{map[string]string{"io.kubernetes.cri.sandbox-memory": "0", "io.kubernetes.cri.sandbox-cpu-quota": "0"}, 1, 512 << 20},
		{map[string]string{"io.kubernetes.cri.sandbox-cpu-quota": "250000", "io.kubernetes.cri.sandbox-cpu-period": "100000"}, 3, 512 << 20},
		{map[string]string{"io.kubernetes.cri.sandbox-memory": "268435456", "lucid.memory": "1g", "lucid.vcpus": "2"}, 2, 1 << 30},
	} {
		spec.Annotations = c.annotations
		plan, err := oci.SplitSandbox(spec)
		if err != nil {
			t.Fatal(err)
		}
		if plan.VM.VCPUs != c.vcpus || plan.VM.Memory != c.memory {
			t.Errorf("%v: %d CPUs and %d MiB, want %d and %d", c.annotations, plan.VM.VCPUs, plan.VM.Memory>>20, c.vcpus, c.memory>>20)
		}
		if !plan.Placeholder || plan.Guest.Hostname != "pod" || plan.Guest.Linux.Sysctl["net.core.somaxconn"] != "99" || plan.Guest.Process != nil {
			t.Errorf("plan %+v", plan.Guest)
		}
	}
	// What Kubernetes gives a process that only waits is not for a VM.
	adj, shares, weight := -998, uint64(2), uint16(100)
	spec.Annotations, spec.Process.OOMScoreAdj = nil, &adj
	spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}, BlockIO: &specs.LinuxBlockIO{Weight: &weight}}
	plan, err := oci.SplitSandbox(spec)
	if err != nil || plan.Host.OOMScoreAdj != nil || plan.Host.Resources.CPU != nil || plan.Host.Resources.BlockIO == nil {
		t.Errorf("%+v, %v", plan.Host, err)
	}
	spec.Root.Path = t.TempDir()
	member, err := oci.SplitMember(spec, "/", oci.NewPod(spec))
	if err != nil || member.Host.Resources != nil || !slices.Contains(member.Ignored, "linux.resources.blockIO") || member.Guest.Linux.Resources.CPU == nil {
		t.Errorf("%+v, %v", member, err)
	}
	spec.Annotations = map[string]string{"io.kubernetes.cri.sandbox-memory": "much"}
	if _, err := oci.SplitSandbox(spec); err == nil {
		t.Error("a size that is no number was accepted")
	}
}
