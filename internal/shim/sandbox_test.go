package shim

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	api "github.com/containerd/containerd/api/runtime/sandbox/v1"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/lucid-containers/lucid/internal/oci"
)

// sandboxClient speaks the generated messages, as containerd does.
func (w *world) sandboxClient() api.TTRPCSandboxService { return api.NewTTRPCSandboxClient(w.client) }

// sandboxBundle has a config.json, for the VM's kernel: containerd's CRI plugin writes none.
func (w *world) sandboxBundle() string {
	w.t.Helper()
	bundle := filepath.Join(w.dir, "bundles", "pod")
	w.configOf(bundle, nil, "unused")
	return bundle
}

// newSandbox creates and starts the sandbox pod.
func (w *world) newSandbox() (api.TTRPCSandboxService, uint32) {
	w.t.Helper()
	c := w.sandboxClient()
	_, err := c.CreateSandbox(w.t.Context(), &api.CreateSandboxRequest{SandboxID: "pod", BundlePath: w.sandboxBundle()})
	must(w.t, err)
	w.t.Cleanup(func() { _, _ = c.ShutdownSandbox(context.Background(), &api.ShutdownSandboxRequest{SandboxID: "pod"}) })
	r, err := c.StartSandbox(w.t.Context(), &api.StartSandboxRequest{SandboxID: "pod"})
	must(w.t, err)
	var spec specs.Spec
	if err := json.Unmarshal(r.Spec.GetValue(), &spec); err != nil || r.Spec.GetTypeUrl() != specType || spec.Version == "" {
		w.t.Errorf("%v, %v", r.Spec, err)
	}
	if r.CreatedAt.AsTime().Before(time.Now().Add(-time.Minute)) {
		w.t.Errorf("%v", r)
	}
	return c, r.Pid
}

func (w *world) wantSandbox(c api.TTRPCSandboxService, pid uint32, state string) {
	w.t.Helper()
	s, err := c.SandboxStatus(w.t.Context(), &api.SandboxStatusRequest{SandboxID: "pod"})
	must(w.t, err)
	if s.SandboxID != "pod" || s.Pid != pid || s.State != state || s.CreatedAt.AsTime().IsZero() || (s.ExitedAt != nil) != (state == sandboxNotReady) {
		w.t.Errorf("%v, want pid %d and %s", s, pid, state)
	}
}

// TestSandbox is one's life, with containers of Kubernetes' and others in it.
func TestSandbox(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.sandboxClient().StartSandbox(ctx, &api.StartSandboxRequest{SandboxID: "pod"})
	wantCode(t, err, codes.NotFound)
	c, pid := w.newSandbox()
	w.wantSandbox(c, pid, sandboxReady)
	_, err = c.CreateSandbox(ctx, &api.CreateSandboxRequest{SandboxID: "pod", BundlePath: "/b"})
	wantCode(t, err, codes.AlreadyExists)
	_, err = c.StartSandbox(ctx, &api.StartSandboxRequest{SandboxID: "pod"})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = c.PingSandbox(ctx, &api.PingRequest{SandboxID: "other"})
	wantCode(t, err, codes.NotFound)
	_, err = c.UpdateSandbox(ctx, &api.UpdateSandboxRequest{SandboxID: "pod"})
	wantCode(t, err, codes.Unimplemented)
	_, err = c.PingSandbox(ctx, &api.PingRequest{SandboxID: "pod"})
	must(t, err)
	p, err := c.Platform(ctx, &api.PlatformRequest{SandboxID: "pod"})
	must(t, err)
	if p.Platform.OS != "linux" || p.Platform.Architecture != "amd64" {
		t.Errorf("%v", p)
	}
	m, err := c.SandboxMetrics(ctx, &api.SandboxMetricsRequest{SandboxID: "pod"})
	must(t, err)
	if m.Metrics.ID != "pod" || m.Metrics.Data.TypeUrl != "io.containerd.cgroups.v2.Metrics" || m.Metrics.Timestamp.AsTime().IsZero() {
		t.Errorf("%v", m)
	}
	connected, err := w.Connect(ctx, &task.ConnectRequest{ID: "pod"})
	if err != nil || connected.TaskPid != pid {
		t.Errorf("%v, %v", connected, err)
	}
	w.run("one", asMember("pod"), "sleep")
	w.run("two", nil, "exit", "4") // `ctr run --sandbox`
	w.wantExit("two", 4)
	w.remove("two")
	for id, annotations := range map[string]labels{"y": asSandbox("y"), "z": asMember("other"), "g": asGrouped("g")} {
		_, err := w.add(id, annotations, "sleep")
		wantCode(t, err, codes.FailedPrecondition)
	}
	w.wantServing(true)
	_, err = c.StopSandbox(ctx, &api.StopSandboxRequest{SandboxID: "pod", TimeoutSecs: 20})
	must(t, err)
	exit, err := c.WaitSandbox(ctx, &api.WaitSandboxRequest{SandboxID: "pod"})
	must(t, err)
	if exit.ExitStatus != 128+15 || exit.ExitedAt.AsTime().IsZero() {
		t.Errorf("%v", exit)
	}
	w.wantExit("one", 137)
	w.wantSandbox(c, pid, sandboxNotReady)
	_, err = c.PingSandbox(ctx, &api.PingRequest{SandboxID: "pod"})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = c.StopSandbox(ctx, &api.StopSandboxRequest{SandboxID: "pod"}) // once more
	must(t, err)
	_, err = c.ShutdownSandbox(ctx, &api.ShutdownSandboxRequest{SandboxID: "pod"})
	must(t, err)
	w.wantServing(true) // a container has not been deleted
	w.remove("one")
	w.wantState()
	w.wantServing(false)
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/tasks/exit", "/tasks/delete")
}

// TestSandboxEnds: the end of the VM is that of the sandbox, and a Shutdown does not need a Stop.
func TestSandboxEnds(t *testing.T) {
	w := newWorld(t)
	c, pid := w.newSandbox()
	w.run("one", asMember("pod"), "sleep")
	waited := make(chan *api.WaitSandboxResponse, 1)
	go func() {
		r, err := c.WaitSandbox(context.Background(), &api.WaitSandboxRequest{SandboxID: "pod"})
		if err != nil {
			t.Error(err)
		}
		waited <- r
	}()
	must(t, unix.Kill(int(pid), unix.SIGKILL))
	if r := <-waited; r.GetExitStatus() != 137 {
		t.Errorf("%v", r)
	}
	w.wantExit("one", 137)
	w.remove("one")
	w.wantServing(true)
	_, err := c.ShutdownSandbox(t.Context(), &api.ShutdownSandboxRequest{SandboxID: "pod"})
	must(t, err)
	w.wantState()
	select {
	case <-w.exited:
	case <-time.After(10 * time.Second):
		t.Error("the server stays")
	}
}

// TestSandboxFails: what CreateSandbox cannot do leaves nothing, and it can be called again.
func TestSandboxFails(t *testing.T) {
	w := newWorld(t)
	c := w.sandboxClient()
	bundle := w.sandboxBundle()
	for name, r := range map[string]*api.CreateSandboxRequest{
		"bundle":   {SandboxID: "pod", BundlePath: "b"},
		"options":  {SandboxID: "pod", BundlePath: bundle, Options: &anypb.Any{TypeUrl: podConfig, Value: []byte{0xff}}},
		"no linux": {SandboxID: "pod", BundlePath: bundle, Options: &anypb.Any{TypeUrl: podConfig, Value: appendText(nil, 8, "\xff")}},
	} {
		if _, err := c.CreateSandbox(t.Context(), r); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			wantCode(t, err, codes.InvalidArgument)
		}
	}
	_, err := c.CreateSandbox(t.Context(), &api.CreateSandboxRequest{SandboxID: "pod", BundlePath: bundle, Annotations: labels{"lucid.memory": "much"}})
	if err == nil {
		t.Error("no error")
	}
	w.newSandbox()
	w.wantState("pod")
}

// TestSandboxNever: the server for a sandbox that has failed ends when containerd says so.
func TestSandboxNever(t *testing.T) {
	w := newWorld(t)
	c := w.sandboxClient()
	if _, err := c.CreateSandbox(t.Context(), &api.CreateSandboxRequest{SandboxID: "pod", BundlePath: "b"}); err == nil {
		t.Error("no error")
	}
	_, err := c.ShutdownSandbox(t.Context(), &api.ShutdownSandboxRequest{SandboxID: "pod"})
	must(t, err)
	select {
	case <-w.exited:
	case <-time.After(10 * time.Second):
		t.Error("the server stays")
	}
}

// TestSandboxDeaf: a VM that does not take SIGTERM gets SIGKILL at once.
func TestSandboxDeaf(t *testing.T) {
	w := newWorld(t)
	c := w.sandboxClient()
	options, err := proto.Marshal(&cri.PodSandboxConfig{Hostname: deafHost})
	must(t, err)
	_, err = c.CreateSandbox(t.Context(), &api.CreateSandboxRequest{
		SandboxID: "pod", BundlePath: w.sandboxBundle(), Options: &anypb.Any{TypeUrl: podConfig, Value: options},
	})
	must(t, err)
	t.Cleanup(func() { _, _ = c.ShutdownSandbox(context.Background(), &api.ShutdownSandboxRequest{SandboxID: "pod"}) })
	_, err = c.StartSandbox(t.Context(), &api.StartSandboxRequest{SandboxID: "pod"})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = c.StopSandbox(ctx, &api.StopSandboxRequest{SandboxID: "pod", TimeoutSecs: 60})
	must(t, err)
	exit, err := c.WaitSandbox(ctx, &api.WaitSandboxRequest{SandboxID: "pod"})
	must(t, err)
	if exit.ExitStatus != 137 {
		t.Errorf("%v", exit)
	}
}

// TestSandboxSpec reads what kubelet asks for.
func TestSandboxSpec(t *testing.T) {
	options, err := proto.Marshal(&cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "web", Attempt: 3}, Hostname: "web-0", LogDirectory: "/var/log/x",
		Annotations: labels{"lucid.memory": "1g"},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/kubepods/pod1", Sysctls: labels{"net.core.somaxconn": "7", "kernel.msgmax": "8"},
			SecurityContext: &cri.LinuxSandboxSecurityContext{Privileged: true},
			Resources:       &cri.LinuxContainerResources{CpuPeriod: 1000, CpuQuota: 3500, CpuShares: 2, MemoryLimitInBytes: 1 << 30},
		},
	})
	must(t, err)
	request := func(r *api.CreateSandboxRequest) (m, config message) {
		t.Helper()
		data, err := proto.Marshal(r)
		must(t, err)
		m, err = parseMessage(data)
		must(t, err)
		config, err = podConfigOf(m)
		must(t, err)
		return m, config
	}
	bundle := t.TempDir()
	r, config := request(&api.CreateSandboxRequest{
		NetnsPath: "/run/netns/x", Annotations: labels{"lucid.vcpus": "2"}, Options: &anypb.Any{TypeUrl: podConfig, Value: options},
	})
	spec, err := sandboxSpec("id", bundle, r, config)
	must(t, err)
	if len(spec.Annotations) != 1 || spec.Annotations["lucid.vcpus"] != "2" {
		t.Errorf("annotations %v: the pod's own are not to be trusted", spec.Annotations)
	}
	if s := spec.Linux.Sysctl; spec.Hostname != "web-0" || spec.Linux.CgroupsPath != "/kubepods/pod1/id" || len(s) != 2 || s["kernel.msgmax"] != "8" {
		t.Errorf("%q, %q, %v", spec.Hostname, spec.Linux.CgroupsPath, s)
	}
	delete(spec.Annotations, "lucid.vcpus")
	plan, err := oci.SplitSandbox(spec)
	must(t, err)
	if plan.VM.VCPUs != 4 || plan.VM.Memory < 1<<30 || plan.VM.Kernel != "" {
		t.Errorf("%+v", plan.VM)
	}
	known := oci.NewPod(spec)
	if known.Namespaces[specs.NetworkNamespace] != "/run/netns/x" || known.SharedMemory != filepath.Join(bundle, sharedMemory) {
		t.Errorf("%+v", known)
	}
	member := oci.Example()
	shm := func() specs.Mount {
		for _, m := range member.Mounts {
			if m.Destination == devShm {
				return m
			}
		}
		t.Fatal("no /dev/shm in the example")
		return specs.Mount{}
	}
	if shareMemory(member, known); shm().Type != "tmpfs" {
		t.Errorf("%+v: its IPC namespace is its own", shm())
	}
	for i, n := range member.Linux.Namespaces {
		if n.Type == specs.IPCNamespace {
			member.Linux.Namespaces[i].Path = "/proc/1/ns/ipc"
		}
	}
	if shareMemory(member, known); !oci.IsBind(shm()) || shm().Source != known.SharedMemory {
		t.Errorf("%+v", shm())
	}
	options, err = proto.Marshal(&cri.PodSandboxConfig{Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/kubepods.slice/kubepods-pod1.slice"}})
	must(t, err)
	r, config = request(&api.CreateSandboxRequest{Options: &anypb.Any{TypeUrl: podConfig, Value: options}})
	spec, err = sandboxSpec("id", bundle, r, config)
	if err != nil || spec.Linux.CgroupsPath != "kubepods-pod1.slice:cri-containerd:id" {
		t.Errorf("%+v, %v", spec, err)
	}
}

// TestPodFiles: a container finds the pod's name and resolver in /etc, but for what it has from elsewhere. It can write them only
// if they are on disk, where containerd's link leads to.
func TestPodFiles(t *testing.T) {
	bundle, dir := t.TempDir(), t.TempDir()
	files := func(c *cri.PodSandboxConfig) []specs.Mount {
		t.Helper()
		data, err := proto.Marshal(c)
		must(t, err)
		config, err := parseMessage(data)
		must(t, err)
		mounts, err := writePodFiles(bundle, config)
		must(t, err)
		return mounts
	}
	want := func(name, text string) {
		t.Helper()
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != text {
			t.Errorf("%s: %q, %v; want %q", name, data, err, text)
		}
	}
	hosts := func(name string) string { data, _ := os.ReadFile(filepath.Join("/etc", name)); return string(data) }
	for _, m := range files(&cri.PodSandboxConfig{}) {
		if filepath.Dir(m.Source) != bundle || !slices.Contains(m.Options, "ro") {
			t.Errorf("%+v", m)
		}
	}
	must(t, os.Symlink(dir, filepath.Join(bundle, workLink)))
	mounts := files(&cri.PodSandboxConfig{Hostname: "web-0", DnsConfig: &cri.DNSConfig{
		Servers: []string{"192.0.2.1", "192.0.2.2"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:5"},
	}})
	want("hostname", "web-0\n")
	want("hosts", hosts("hosts"))
	want("resolv.conf", "search a.example b.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:5\n")
	spec := &specs.Spec{Root: &specs.Root{Readonly: true}, Mounts: []specs.Mount{{Destination: "/etc/hosts/", Source: "/kubelets"}}}
	addPodFiles(spec, mounts)
	if len(spec.Mounts) != 3 || spec.Mounts[1].Destination != "/etc/hostname" || spec.Mounts[1].Source != filepath.Join(dir, "hostname") ||
		!slices.Contains(spec.Mounts[2].Options, "ro") || slices.Contains(mounts[2].Options, "ro") {
		t.Errorf("%+v", spec.Mounts)
	}
	files(&cri.PodSandboxConfig{DnsConfig: &cri.DNSConfig{}})
	want("resolv.conf", "")
	files(&cri.PodSandboxConfig{})
	want("resolv.conf", hosts("resolv.conf"))
}

// FuzzMessage: nothing that is sent ends the shim.
func FuzzMessage(f *testing.F) {
	data, err := proto.Marshal(&api.CreateSandboxRequest{SandboxID: "pod", Annotations: labels{"a": "b"}, Options: &anypb.Any{TypeUrl: podConfig, Value: field(8, "x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	dir := f.TempDir()
	f.Fuzz(func(_ *testing.T, data []byte) {
		m, err := parseMessage(data)
		if err != nil {
			return
		}
		if config, err := podConfigOf(m); err == nil {
			_, _ = sandboxSpec("id", dir, m, config)
			_, _ = writePodFiles(dir, config)
		}
	})
}

// TestSandboxProcesses: version 3 of the protocol, in which containers have no `start`; the kill of such a shim, and what `delete`
// is called for then.
func TestSandboxProcesses(t *testing.T) {
	n := install(t)
	n.bundle = n.sandboxBundle()
	var r bootstrap.BootstrapResult
	must(t, proto.Unmarshal(n.shim(append(field(1, "c1"), field(2, n.namespace)...), nil, "start"), &r))
	if r.Version != 3 {
		t.Errorf("version %d", r.Version)
	}
	n.connect(r.Address)
	c := n.sandboxClient()
	_, err := c.CreateSandbox(t.Context(), &api.CreateSandboxRequest{SandboxID: "c1", BundlePath: n.bundle})
	must(t, err)
	started, err := c.StartSandbox(t.Context(), &api.StartSandboxRequest{SandboxID: "c1"})
	must(t, err)
	// As for `ctr run --sandbox`: nothing but the file says where it belongs.
	n.run("one", nil, "sleep")
	bundle := filepath.Join(n.dir, "bundles", "one")
	must(t, os.WriteFile(filepath.Join(bundle, sandboxFile), []byte("c1"), 0o600))
	sandbox := n.bundle
	n.bundle = bundle
	var d task.DeleteResponse
	// The shim is the sandbox's: it stays.
	must(t, proto.Unmarshal(n.shim(nil, nil, "-bundle", bundle, "-id", "one", "delete"), &d))
	_, err = c.PingSandbox(t.Context(), &api.PingRequest{SandboxID: "c1"})
	must(t, err)
	n.bundle = sandbox
	must(t, unix.Kill(n.serverPid(), unix.SIGKILL))
	eventually(t, "the VM ends", func() bool { return gone(t, int(started.Pid)) })
	must(t, proto.Unmarshal(n.shim(nil, nil, "-bundle", sandbox, "delete"), &d))
	if d.ExitStatus != 137 || d.Pid != started.Pid {
		t.Errorf("%v", &d)
	}
	n.wantNothing(r.Address)
}
