//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Kubernetes' way: containerd's CRI plugin, called as kubelet does. Pods are in the host's network, which needs no CNI plugins.

const criConfig = `[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "example.com/pause:e2e"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "lucid"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lucid]
      runtime_type = "io.containerd.lucid.v2"
`

// kubelet is a client of the CRI.
type kubelet struct {
	cri.RuntimeServiceClient
	t       *testing.T
	ctx     context.Context
	d       *containerd
	handler string                       // of the pods
	limits  *cri.LinuxContainerResources // of the pods; nil: none
	pod     string
	config  *cri.PodSandboxConfig
}

// TestShimCRI is pods by way of containerd 1.6.
func TestShimCRI(t *testing.T) {
	d := newContainerd(t, &containerd{name: "cri", bin: "/usr/bin", cri: criConfig}, "apt-get install containerd")
	k := newKubelet(t, d, "pause", "busybox")
	testCRI(t, k, "lucid")
}

// testCRI runs pods of a handler.
func testCRI(t *testing.T, k *kubelet, handler string) {
	k.handler = handler
	for _, c := range []struct {
		name string
		test func(*testing.T, *kubelet)
	}{
		{"Pod", criPod},
		{"SharedPIDs", criSharedPIDs},
		{"StopRunning", criStopRunning},
		{"NothingLeft", criNothingLeft},
	} {
		t.Run(c.name, func(t *testing.T) { k.t = t; c.test(t, k) })
	}
}

func criNothingLeft(t *testing.T, k *kubelet) {
	// The CRI does not wait for the shim, which has events to send.
	for begin := time.Now(); len(shimPids(t, "")) > 0 && time.Since(begin) < 20*time.Second; {
		time.Sleep(100 * time.Millisecond)
	}
	k.d.wantNothing(t)
	if n := virtualMachines(t); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
}

// newKubelet imports images of busybox under these names and connects.
func newKubelet(t *testing.T, d *containerd, names ...string) *kubelet {
	t.Helper()
	images := filepath.Join(d.dir, "images")
	must(t, os.MkdirAll(images, 0o755))
	debs, err := filepath.Glob(filepath.Join(world.bin, "busybox-static_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("packages %v, %v", debs, err)
	}
	must(t, exec.Command("dpkg-deb", "-x", debs[0], images).Run())
	for _, name := range names {
		path := map[string]string{"pause": "pause", "busybox": "bin/busybox"}[name] // the program of pause is never run
		file := filepath.Join(images, name+".tar")
		must(t, os.WriteFile(file, imageNamed(t, "example.com/"+name+":e2e", path, filepath.Join(images, "bin/busybox")), 0o644))
		d.must(t, "-n", "k8s.io", "image", "import", file)
	}
	conn, err := grpc.NewClient("unix://"+d.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return &kubelet{RuntimeServiceClient: cri.NewRuntimeServiceClient(conn), t: t, ctx: ctx, d: d}
}

// runPod starts a pod in the host's network.
func (k *kubelet) runPod(name string, pid cri.NamespaceMode) {
	k.t.Helper()
	logs := filepath.Join(k.d.dir, "logs", name)
	must(k.t, os.MkdirAll(logs, 0o755))
	options := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: pid, Ipc: cri.NamespaceMode_POD}
	k.config = &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "default"}, LogDirectory: logs, Hostname: name + "-host",
		DnsConfig: &cri.DNSConfig{Servers: []string{"192.0.2.7"}, Searches: []string{"pods.example"}},
		Linux: &cri.LinuxPodSandboxConfig{
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: options},
			Sysctls:         map[string]string{"kernel.shm_rmid_forced": "1"}, Resources: k.limits,
		},
	}
	r, err := k.RunPodSandbox(k.ctx, &cri.RunPodSandboxRequest{Config: k.config, RuntimeHandler: k.handler})
	must(k.t, err)
	k.pod = r.PodSandboxId
	k.t.Cleanup(func() { // after a failure
		_, _ = k.StopPodSandbox(context.Background(), &cri.StopPodSandboxRequest{PodSandboxId: r.PodSandboxId})
		_, _ = k.RemovePodSandbox(context.Background(), &cri.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId})
	})
	k.d.wantBegun(k.t)
}

// container makes and starts one with a shell that runs script.
func (k *kubelet) container(name, script string) string {
	k.t.Helper()
	volume := filepath.Join(k.d.dir, "volume-"+k.config.Metadata.Name)
	must(k.t, os.MkdirAll(volume, 0o777))
	options := k.config.Linux.SecurityContext.NamespaceOptions
	r, err := k.CreateContainer(k.ctx, &cri.CreateContainerRequest{
		PodSandboxId: k.pod, SandboxConfig: k.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: "example.com/busybox:e2e"},
			Command: shellIn(script), LogPath: name + ".log",
			Mounts: []*cri.Mount{{ContainerPath: "/vol", HostPath: volume}},
			Linux: &cri.LinuxContainerConfig{
				Resources:       &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 200},
				SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: options},
			},
		},
	})
	must(k.t, err)
	_, err = k.StartContainer(k.ctx, &cri.StartContainerRequest{ContainerId: r.ContainerId})
	must(k.t, err)
	return r.ContainerId
}

// shellIn is a shell in an image of busybox alone.
func shellIn(script string) []string {
	return []string{"/bin/busybox", "sh", "-c", "[ -e /bin/yes ] || /bin/busybox --install -s /bin; " + script}
}

// exec runs a shell in a container.
func (k *kubelet) exec(id, script string) string {
	k.t.Helper()
	r, err := k.ExecSync(k.ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: shellIn(script), Timeout: 600})
	must(k.t, err)
	if r.ExitCode != 0 {
		k.t.Fatalf("exec of %q: exit code %d, stderr %s", script, r.ExitCode, r.Stderr)
	}
	return string(r.Stdout)
}

// wantExited waits for the end of a container, with one of the codes.
func (k *kubelet) wantExited(id string, codes ...int32) {
	k.t.Helper()
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		r, err := k.ContainerStatus(k.ctx, &cri.ContainerStatusRequest{ContainerId: id})
		must(k.t, err)
		if s := r.Status; s.State == cri.ContainerState_CONTAINER_EXITED {
			if !slices.Contains(codes, s.ExitCode) {
				k.t.Errorf("exit code %d, want %d", s.ExitCode, codes)
			}
			return
		}
		if time.Since(begin) > 5*time.Minute {
			k.t.Fatalf("the container does not end: %v", r.Status)
		}
	}
}

func (k *kubelet) endPod() {
	k.t.Helper()
	_, err := k.StopPodSandbox(k.ctx, &cri.StopPodSandboxRequest{PodSandboxId: k.pod})
	must(k.t, err)
	_, err = k.RemovePodSandbox(k.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: k.pod})
	must(k.t, err)
}

func criPod(t *testing.T, k *kubelet) {
	k.runPod("web", cri.NamespaceMode_CONTAINER)
	r, err := k.PodSandboxStatus(k.ctx, &cri.PodSandboxStatusRequest{PodSandboxId: k.pod})
	must(t, err)
	if r.Status.State != cri.PodSandboxState_SANDBOX_READY {
		t.Errorf("%v", r.Status)
	}
	server := k.container("server", `echo ready; echo shared >/dev/shm/s; echo page >/vol/page
trap "exit 3" TERM; httpd -p 127.0.0.1:7777 -h /vol; while :; do sleep 0.2; done`)
	client := k.container("client", `until [ -e /vol/page ] && wget -q -O - http://127.0.0.1:7777/page; do sleep 0.2; done
cat /dev/shm/s; echo mine >/vol/mine; echo done >&2; exit 7`)
	k.wantExited(client, 7)
	log, err := os.ReadFile(filepath.Join(k.config.LogDirectory, "client.log"))
	must(t, err)
	wantContains(t, string(log), " stdout F page\n", " stdout F shared\n", " stderr F done\n")
	log, err = os.ReadFile(filepath.Join(k.config.LogDirectory, "server.log"))
	must(t, err)
	wantContains(t, string(log), " stdout F ready\n")
	if got := k.exec(server, "cat /vol/mine /proc/sys/kernel/shm_rmid_forced"); got != "mine\n1\n" {
		t.Errorf("volume and sysctl: %q", got)
	}
	if got := k.exec(server, "cat /etc/hostname /etc/resolv.conf; grep -c localhost /etc/hosts >/dev/null && echo hosts; echo >>/etc/hosts && echo written"); got != "web-host\nsearch pods.example\nnameserver 192.0.2.7\nhosts\nwritten\n" {
		t.Errorf("files in /etc: %q", got)
	}
	if n, shims := virtualMachines(t), shimPids(t, ""); n != 1 || len(shims) != 1 {
		t.Errorf("%d VMs, shims %v: want one of each", n, shims)
	}
	failed, err := k.ExecSync(k.ctx, &cri.ExecSyncRequest{ContainerId: server, Cmd: shellIn("echo x >&2; exit 5")})
	must(t, err)
	if failed.ExitCode != 5 || string(failed.Stderr) != "x\n" {
		t.Errorf("%v", failed)
	}
	stats, err := k.ContainerStats(k.ctx, &cri.ContainerStatsRequest{ContainerId: server})
	must(t, err)
	if s := stats.Stats; s.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 || s.Memory.GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("%v", s)
	}
	// A container that has ended is made anew, in the same VM.
	again := k.container("again", "cat /dev/shm/s; exit 2")
	k.wantExited(again, 2)
	_, err = k.StopContainer(k.ctx, &cri.StopContainerRequest{ContainerId: server, Timeout: 60})
	must(t, err)
	k.wantExited(server, 3)
	for _, id := range []string{server, client, again} {
		_, err = k.RemoveContainer(k.ctx, &cri.RemoveContainerRequest{ContainerId: id})
		must(t, err)
	}
	k.endPod()
}

// criSharedPIDs: with one pid namespace for the pod, each sees the other's processes, and the first process is nobody's.
func criSharedPIDs(t *testing.T, k *kubelet) {
	k.runPod("pids", cri.NamespaceMode_POD)
	one := k.container("one", "exec sleep 1000")
	two := k.container("two", "exec sleep 2000")
	got := k.exec(two, "cat /proc/1/comm; for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done")
	wantContains(t, got, "pause\n", "sleep 1000", "sleep 2000")
	_, err := k.StopContainer(k.ctx, &cri.StopContainerRequest{ContainerId: one})
	must(t, err)
	k.wantExited(one, 137)
	if got := k.exec(two, "ls /dev/shm; readlink /proc/self/ns/ipc"); !strings.HasPrefix(got, "ipc:") {
		t.Errorf("%q", got)
	}
	k.endPod()
}

// criStopRunning: a pod that is stopped takes its containers along.
func criStopRunning(t *testing.T, k *kubelet) {
	k.runPod("stop", cri.NamespaceMode_CONTAINER)
	id := k.container("one", "exec sleep 1000")
	k.endPod()
	if _, err := k.ContainerStatus(k.ctx, &cri.ContainerStatusRequest{ContainerId: id}); err == nil {
		t.Error("the container is still there")
	}
}
