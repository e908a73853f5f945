//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Kubernetes' way with containerd 2, which has two kinds of pods: those with a pause container, which is a task, and those that the
// shim makes by the sandbox service. For the latter there is no pause image.

const cri2Config = `[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "example.com/pause:e2e"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "lucid"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.lucid]
    runtime_type = "io.containerd.lucid.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.lucid-sandbox]
    runtime_type = "io.containerd.lucid.v2"
    sandboxer = "shim"
    disable_pause_image_pull = true
`

func newCRI2(t *testing.T, name string) *containerd {
	return newContainerd(t, cri2(name), "make containerd-v2")
}

func cri2(name string) *containerd {
	return &containerd{name: name, bin: filepath.Join(world.bin, "containerd-v2"), cri: cri2Config, format: 3}
}

// TestShimCRI2 is TestShimCRI with containerd 2.
func TestShimCRI2(t *testing.T) {
	testCRI(t, newKubelet(t, newCRI2(t, "cri2"), "pause", "busybox"), "lucid")
}

// TestShimSandboxer is the same with pods that the shim makes, and what becomes of these when something dies.
func TestShimSandboxer(t *testing.T) {
	k := newKubelet(t, newCRI2(t, "sandboxer"), "busybox")
	testCRI(t, k, "lucid-sandbox")
	for _, c := range []struct {
		name string
		test func(*testing.T, *kubelet)
	}{
		{"Limits", sandboxerLimits},
		{"Ctr", sandboxerCtr},
		{"Restart", sandboxerRestart},
		{"ShimKilled", sandboxerShimKilled},
		{"SandboxKilled", sandboxerSandboxKilled},
		{"NothingLeftAfterKills", criNothingLeft},
	} {
		t.Run(c.name, func(t *testing.T) { k.t = t; c.test(t, k) })
	}
}

// sandboxerLimits: a pod is as large as kubelet says, and a container in it has its OOM kill reported.
func sandboxerLimits(t *testing.T, k *kubelet) {
	k.limits = &cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 150000, MemoryLimitInBytes: 700 << 20}
	defer func() { k.limits = nil }()
	k.runPod("limits", cri.NamespaceMode_CONTAINER)
	id := k.container("one", "grep -c ^processor /proc/cpuinfo >/vol/cpus; grep MemTotal /proc/meminfo >/vol/memory; hostname >/vol/name; exec tail /dev/zero")
	k.wantExited(id, 137)
	volume := filepath.Join(k.d.dir, "volume-limits")
	var got [3]string
	for i, name := range []string{"cpus", "memory", "name"} {
		data, err := os.ReadFile(filepath.Join(volume, name))
		must(t, err)
		got[i] = string(data)
	}
	var kib int
	if _, err := fmt.Sscanf(got[1], "MemTotal: %d kB", &kib); err != nil || got[0] != "2\n" || kib < 700<<10 || kib > 1000<<10 || got[2] != "limits-host\n" {
		t.Errorf("%q, %v", got, err)
	}
	r, err := k.ContainerStatus(k.ctx, &cri.ContainerStatusRequest{ContainerId: id})
	must(t, err)
	if r.Status.Reason != "OOMKilled" {
		t.Errorf("reason %q", r.Status.Reason)
	}
	k.endPod()
}

// sandboxerCtr: a sandbox without Kubernetes, and two containers in it that say nothing of it themselves.
func sandboxerCtr(t *testing.T, k *kubelet) {
	config := filepath.Join(k.d.dir, "sandbox.json")
	must(t, os.WriteFile(config, []byte(`{"hostname":"box"}`), 0o644))
	k.d.must(t, "sandboxes", "run", "--runtime", shimRuntime, config, "box1")
	t.Cleanup(func() { k.d.ctr(t, nil, "sandboxes", "rm", "-f", "box1") })
	script := "cat /proc/sys/kernel/random/boot_id; exit 3"
	var boots [2]string
	for i := range boots {
		r := k.d.ctr(t, nil, k.d.run(t, fmt.Sprint("inbox", i), []string{"--rm", "--sandbox", "box1"}, "/bin/sh", "-c", script)...)
		r.wantCode(t, 3)
		boots[i] = r.stdout
	}
	if boots[0] == "" || boots[0] != boots[1] {
		t.Errorf("%q: not the same VM", boots)
	}
	if n, shims := virtualMachines(t), shimPids(t, ""); n != 1 || len(shims) != 1 {
		t.Errorf("%d VMs, shims %v: want one of each", n, shims)
	}
	k.d.must(t, "sandboxes", "rm", "-f", "box1")
}

// sandboxerRestart kills the daemon. Its successor finds the pod and what runs in it.
func sandboxerRestart(t *testing.T, k *kubelet) {
	k.runPod("restart", cri.NamespaceMode_CONTAINER)
	id := k.container("one", "exec sleep 1000")
	must(t, k.d.cmd.Process.Kill())
	<-k.d.exited
	k.d.start(t)
	k.wantPod(cri.PodSandboxState_SANDBOX_READY)
	if got := k.exec(id, "echo still there"); got != "still there\n" {
		t.Errorf("%q", got)
	}
	again := k.container("two", "exit 6") // in the VM that runs
	k.wantExited(again, 6)
	if n, shims := virtualMachines(t), shimPids(t, ""); n != 1 || len(shims) != 1 {
		t.Errorf("%d VMs, shims %v: want one of each", n, shims)
	}
	k.endPod()
}

func sandboxerShimKilled(t *testing.T, k *kubelet) {
	k.runPod("shim", cri.NamespaceMode_CONTAINER)
	id := k.container("one", "exec sleep 1000")
	shims := shimPids(t, "")
	if len(shims) != 1 {
		t.Fatalf("shims %v, want one", shims)
	}
	must(t, exec.Command("kill", "-9", shims[0]).Run())
	k.wantPod(cri.PodSandboxState_SANDBOX_NOTREADY)
	// containerd's word for a connection that has ended is 255, the shim's for what `delete` has killed 137: the first one counts.
	k.wantExited(id, 137, 255)
	k.endPod()
}

func sandboxerSandboxKilled(t *testing.T, k *kubelet) {
	k.runPod("sandbox", cri.NamespaceMode_CONTAINER)
	id := k.container("one", "exec sleep 1000")
	pid := virtualMachinePids(t)
	if len(pid) != 1 {
		t.Fatalf("VMs %v, want one", pid)
	}
	n, err := strconv.Atoi(pid[0])
	must(t, err)
	must(t, syscall.Kill(n, syscall.SIGKILL))
	k.wantPod(cri.PodSandboxState_SANDBOX_NOTREADY)
	k.wantExited(id, 137)
	k.endPod()
}

// wantPod waits for a state of the pod.
func (k *kubelet) wantPod(want cri.PodSandboxState) {
	k.t.Helper()
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		r, err := k.PodSandboxStatus(k.ctx, &cri.PodSandboxStatusRequest{PodSandboxId: k.pod})
		if err == nil && r.Status.State == want {
			return
		}
		if time.Since(begin) > shimPatience {
			k.t.Fatalf("%v, %v: want %v", r, err, want)
		}
	}
}
