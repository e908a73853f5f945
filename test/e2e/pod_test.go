//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestRealPod is a pod by the command line: a sandbox, and two containers that share its VM, network, IPC and a volume.
func TestRealPod(t *testing.T) {
	sandbox := newBundle(t, "/pause")
	sandbox.spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	sandbox.write()
	leave(t, "create", "--bundle", sandbox.dir, sandbox.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", sandbox.id) })
	lucid(t, nil, "start", sandbox.id).wantCode(t, 0)
	pid := containerState(t, sandbox.id).Pid

	volume := filepath.Join(sandbox.dir, "volume")
	must(t, os.Mkdir(volume, 0o777))
	member := func(script string) *bundle {
		b := newBundle(t, "sh", "-ec", script)
		b.spec.Annotations = map[string]string{
			"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox.id,
		}
		b.spec.Linux.Namespaces = []specs.LinuxNamespace{
			{Type: "mount"},
			{Type: "pid"},
			{Type: "ipc", Path: fmt.Sprintf("/proc/%d/ns/ipc", pid)},
			{Type: "uts", Path: fmt.Sprintf("/proc/%d/ns/uts", pid)},
			{Type: "network", Path: fmt.Sprintf("/proc/%d/ns/net", pid)},
		}
		b.spec.Hostname = ""
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/vol", Source: volume, Type: "bind", Options: []string{"rbind"}})
		return b
	}
	one := member("ipcmk -M 12345; echo ready >/vol/ready; exec sleep 1000")
	one.write()
	leave(t, "create", "--bundle", one.dir, one.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", one.id) })
	lucid(t, nil, "start", one.id).wantCode(t, 0)
	r := member(`until [ -e /vol/ready ]; do sleep 0.2; done
ipcs -m | grep -o 12345; cat /proc/sys/kernel/random/boot_id; readlink /proc/self/ns/net; exit 5`).run(nil)
	r.wantCode(t, 5)
	got := lucid(t, nil, "exec", one.id, "sh", "-c", "echo 12345; cat /proc/sys/kernel/random/boot_id; readlink /proc/self/ns/net")
	got.wantCode(t, 0)
	r.wantStdout(t, got.stdout)
	if n := strings.Count(r.stdout, "\n"); n != 3 {
		t.Errorf("%d lines, want 3: %q", n, r.stdout)
	}
	if _, err := os.Stat(filepath.Join(volume, "ready")); err != nil {
		t.Errorf("what the container wrote: %v", err)
	}
	lucid(t, nil, "kill", one.id, "KILL").wantCode(t, 0)
	waitFor(t, "stopped", func() bool { return containerState(t, one.id).Status == "stopped" })
	lucid(t, nil, "delete", one.id).wantCode(t, 0)
	lucid(t, nil, "kill", sandbox.id, "TERM").wantCode(t, 0)
	waitFor(t, "stopped", func() bool { return containerState(t, sandbox.id).Status == "stopped" })
	lucid(t, nil, "delete", sandbox.id).wantCode(t, 0)
	wantNoProcesses(t, sandbox.id)
	wantNoProcesses(t, one.id)
}
