//go:build e2e

package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestShimPods: containers that share a VM, by the annotations of Kubernetes' callers and by those of containerd's groups.
func TestShimPods(t *testing.T) {
	testPods(t, &containerd{name: "pods", bin: "/usr/bin"}, "apt-get install containerd")
}

// TestShimPods2 is the same with a containerd v2.
func TestShimPods2(t *testing.T) {
	testPods(t, &containerd{name: "pods2", bin: filepath.Join(world.bin, "containerd-v2")}, "make containerd-v2")
}

func testPods(t *testing.T, d *containerd, install string) {
	newContainerd(t, d, install)
	for _, c := range []struct {
		name string
		test func(*testing.T, *containerd)
	}{
		{"Shared", podShared},
		{"KillOne", podKillOne},
		{"SandboxFirst", podSandboxFirst},
		{"SandboxKilled", podSandboxKilled},
		{"ShimKilled", podShimKilled},
		{"Restart", podRestart},
		{"Group", podGroup},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, d) })
	}
	t.Run("NothingLeft", func(t *testing.T) { d.wantNothing(t) })
}

// annotations are ctr's options for a container of a pod.
func annotations(kind, sandbox string, more ...string) []string {
	return append([]string{
		"--annotation", "io.kubernetes.cri.container-type=" + kind, "--annotation", "io.kubernetes.cri.sandbox-id=" + sandbox,
	}, more...)
}

// member starts a container of a pod that shares what Kubernetes' containers share.
func (d *containerd) member(t *testing.T, pod, id string, options []string, args ...string) {
	t.Helper()
	d.background(t, id, d.inPod(t, pod, options...), args...)
}

func (d *containerd) inPod(t *testing.T, pod string, more ...string) []string {
	t.Helper()
	pid, _ := d.status(t, pod)
	options := annotations("container", pod, more...)
	for kind, name := range map[string]string{"network": "net", "ipc": "ipc", "uts": "uts"} {
		options = append(options, "--with-ns", kind+":/proc/"+pid+"/ns/"+name)
	}
	return options
}

// virtualMachines counts the processes that hold one.
func virtualMachines(t *testing.T) int { t.Helper(); return len(virtualMachinePids(t)) }

func virtualMachinePids(t *testing.T) []string {
	t.Helper()
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	must(t, err)
	pids := map[string]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "anon_inode:kvm-vm" {
			pids[strings.Split(fd, "/")[2]] = true
		}
	}
	return slices.Collect(maps.Keys(pids))
}

const listen = `ipcmk -M 12345 >/dev/null; hostname >/vol/name
exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 7777, Listen => 5) or die "$@";
open F, ">/vol/ready"; close F; while ($c = $s->accept) { print $c "over the network\n"; close $c }'`

const connect = `until [ -e /vol/ready ]; do sleep 0.2; done; exec 3<>/dev/tcp/127.0.0.1/7777; cat <&3
ipcs -m | grep -o 12345; cat /proc/sys/kernel/random/boot_id; [ "$(hostname)" = "$(cat /vol/name)" ] && echo same name
echo from the second >/vol/second; tr '\0' ' ' </proc/1/cmdline; exit 5`

func podShared(t *testing.T, d *containerd) {
	volume := filepath.Join(d.dir, "volume")
	must(t, os.MkdirAll(volume, 0o777))
	mount := []string{"--mount", "type=bind,src=" + volume + ",dst=/vol,options=rbind:rw"}
	d.background(t, "pod1", annotations("sandbox", "pod1", "--annotation", "io.kubernetes.cri.sandbox-memory=200000000"), "/pause")
	d.member(t, "pod1", "one1", mount, "/bin/bash", "-c", listen)
	r := d.ctr(t, nil, d.run(t, "two1", append(d.inPod(t, "pod1", mount...), "--rm"), "/bin/bash", "-c", connect)...)
	r.wantCode(t, 5)
	boot := d.must(t, "task", "exec", "--exec-id", "e1", "one1", "/bin/cat", "/proc/sys/kernel/random/boot_id")
	wantContains(t, r.stdout, "over the network\n12345\n"+boot+"same name\n", "bash -c") // a pid namespace of its own
	d.wantEvents(t, "two1", "create", "start", "exit", "delete")
	if n, shims := virtualMachines(t), shimPids(t, ""); n != 1 || len(shims) != 1 {
		t.Errorf("%d VMs, shims %v: want one of each", n, shims)
	}
	got := d.must(t, "task", "exec", "--exec-id", "e2", "one1", "/bin/sh", "-c", "cat /vol/second; free -m")
	wantContains(t, got, "from the second\n", "Mem:")
	data, err := os.ReadFile(filepath.Join(volume, "second"))
	if err != nil || string(data) != "from the second\n" {
		t.Errorf("on the host: %q, %v", data, err)
	}
	r = d.ctr(t, nil, "task", "exec", "--exec-id", "e3", "one1", "/bin/sh", "-c", "exit 9")
	r.wantCode(t, 9)
	wantContains(t, d.must(t, "task", "metrics", "one1"), "memory.usage", "pids.current")
	wantContains(t, d.must(t, "task", "metrics", "pod1"), "memory.usage")
	pid, _ := d.status(t, "one1")
	if kib := privateKiB(t, pid); kib > maxMember {
		t.Errorf("the process of a container has %d KiB of private memory, at most %d", kib, maxMember)
	}
}

// maxMember is what one more container of a pod may cost the host, in KiB, besides guest memory.
const maxMember = 6 << 10

// privateKiB is the memory that a process shares with no other.
func privateKiB(t *testing.T, pid string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	must(t, err)
	sum := 0
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], "Private_") {
			n, err := strconv.Atoi(f[1])
			must(t, err)
			sum += n
		}
	}
	t.Logf("pid %s: %d KiB private", pid, sum)
	return sum
}

// podKillOne: one container is killed and deleted, the other goes on, and the pod ends last.
func podKillOne(t *testing.T, d *containerd) {
	d.background(t, "pod2", annotations("sandbox", "pod2"), "/pause")
	d.member(t, "pod2", "one2", nil, "/bin/sleep", "1000")
	d.member(t, "pod2", "two2", nil, "/bin/sh", "-c", `trap "exit 3" TERM; while :; do sleep 0.2; done`)
	d.must(t, "task", "pause", "two2")
	d.await(t, "two2", "PAUSED")
	r := d.ctr(t, nil, "task", "exec", "--exec-id", "e0", "one2", "/bin/echo", "not paused")
	r.wantStdout(t, "not paused\n")
	d.must(t, "task", "resume", "two2")
	d.await(t, "two2", "RUNNING")
	d.must(t, "task", "kill", "-s", "KILL", "one2")
	d.await(t, "one2", "STOPPED")
	d.wantDeleted(t, "one2", "137")
	r = d.ctr(t, nil, "task", "exec", "--exec-id", "e1", "two2", "/bin/echo", "still there")
	r.wantStdout(t, "still there\n")
	// The same ID once more, in the VM that runs.
	d.must(t, "container", "rm", "one2")
	r = d.ctr(t, nil, d.run(t, "one2", append(d.inPod(t, "pod2"), "--rm"), "/bin/sh", "-c", "exit 4")...)
	r.wantCode(t, 4)
	d.must(t, "task", "kill", "-s", "TERM", "two2")
	d.await(t, "two2", "STOPPED")
	d.wantDeleted(t, "two2", "3")
	d.must(t, "task", "kill", "-s", "KILL", "pod2")
	d.await(t, "pod2", "STOPPED")
	d.wantDeleted(t, "pod2", "137")
	d.wantEvents(t, "pod2", "create", "start", "exit", "delete")
}

// wantDeleted deletes a task that has stopped.
func (d *containerd) wantDeleted(t *testing.T, id, code string) {
	t.Helper()
	if r := d.ctr(t, nil, "task", "rm", id); !strings.Contains(r.stderr, "exit code "+code) {
		t.Errorf("delete of %s: %+v, want exit code %s", id, r, code)
	}
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if _, status := d.status(t, id); status == "" {
			return
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("task %s is still there", id)
		}
	}
}

// podSandboxFirst ends the pod under its containers, and deletes it before them.
func podSandboxFirst(t *testing.T, d *containerd) {
	d.background(t, "pod3", annotations("sandbox", "pod3"), "/pause")
	d.member(t, "pod3", "one3", nil, "/bin/sleep", "1000")
	d.must(t, "task", "kill", "-s", "TERM", "pod3")
	for _, id := range []string{"pod3", "one3"} {
		d.await(t, id, "STOPPED")
	}
	r := d.ctr(t, nil, "task", "rm", "pod3")
	r.wantCode(t, 0)
	d.wantDeleted(t, "one3", "137")
	d.wantEvents(t, "one3", "create", "start", "exit", "delete")
}

// podSandboxKilled kills what stands for a container, which ends that alone, and then the pod's sandbox process.
func podSandboxKilled(t *testing.T, d *containerd) {
	d.background(t, "pod4", annotations("sandbox", "pod4"), "/pause")
	d.member(t, "pod4", "one4", nil, "/bin/sleep", "1000")
	d.member(t, "pod4", "two4", nil, "/bin/sleep", "2000")
	pid, _ := d.status(t, "two4")
	must(t, exec.Command("kill", "-9", pid).Run())
	d.await(t, "two4", "STOPPED")
	d.wantDeleted(t, "two4", "137")
	// In the VM it is gone too. Its pid namespace was its own, so the pod's counter has to tell.
	one := regexp.MustCompile(`pids\.current\s+1\s`)
	for begin := time.Now(); !one.MatchString(d.must(t, "task", "metrics", "pod4")); time.Sleep(200 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("the process goes on in the VM:\n%s", d.must(t, "task", "metrics", "pod4"))
		}
	}
	pid, _ = d.status(t, "pod4")
	must(t, exec.Command("kill", "-9", pid).Run())
	for _, id := range []string{"pod4", "one4"} {
		d.await(t, id, "STOPPED")
		d.wantDeleted(t, id, "137")
	}
}

// podShimKilled: all of the pod ends with its shim, and each container is told of.
func podShimKilled(t *testing.T, d *containerd) {
	d.background(t, "pod5", annotations("sandbox", "pod5"), "/pause")
	d.member(t, "pod5", "one5", nil, "/bin/sleep", "1000")
	shims := shimPids(t, "")
	if len(shims) != 1 {
		t.Fatalf("shims %v, want one", shims)
	}
	must(t, exec.Command("kill", "-9", shims[0]).Run())
	for _, id := range []string{"pod5", "one5"} {
		d.await(t, id, "")
		d.wantEvents(t, id, "create", "start", "exit", "delete")
	}
	if n := virtualMachines(t); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
}

// podGroup: containerd's own way to put containers into one shim. They share the VM and nothing else, and it lives as
// long as one of them.
func podGroup(t *testing.T, d *containerd) {
	group := []string{"--annotation", "io.containerd.runc.v2.group=g6"}
	d.background(t, "one6", group, "/bin/sleep", "1000")
	d.background(t, "two6", group, "/bin/sleep", "1000")
	boot := []string{"/bin/cat", "/proc/sys/kernel/random/boot_id"}
	one := d.must(t, append([]string{"task", "exec", "--exec-id", "e1", "one6"}, boot...)...)
	if n := virtualMachines(t); n != 1 {
		t.Errorf("%d VMs, want one", n)
	}
	d.must(t, "task", "kill", "-s", "KILL", "one6")
	d.await(t, "one6", "STOPPED")
	d.wantDeleted(t, "one6", "137")
	two := d.must(t, append([]string{"task", "exec", "--exec-id", "e2", "two6"}, boot...)...)
	if one != two || len(one) < 30 {
		t.Errorf("boot IDs %q and %q, want one VM", one, two)
	}
	d.must(t, "task", "kill", "-s", "KILL", "two6")
	d.await(t, "two6", "STOPPED")
	d.wantDeleted(t, "two6", "137")
	if n := virtualMachines(t); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
}

// podRestart kills the daemon. Its successor finds all containers of the pod.
func podRestart(t *testing.T, d *containerd) {
	d.background(t, "pod7", annotations("sandbox", "pod7"), "/pause")
	d.member(t, "pod7", "one7", nil, "/bin/sleep", "1000")
	d.member(t, "pod7", "two7", nil, "/bin/sh", "-c", "sleep 3; exit 7")
	must(t, d.cmd.Process.Kill())
	<-d.exited
	time.Sleep(8 * time.Second)
	d.start(t)
	d.await(t, "two7", "STOPPED")
	d.wantDeleted(t, "two7", "7")
	r := d.ctr(t, nil, "task", "exec", "--exec-id", "e1", "one7", "/bin/echo", "still there")
	r.wantStdout(t, "still there\n")
	d.member(t, "pod7", "three7", nil, "/bin/sleep", "1000")
	if n := virtualMachines(t); n != 1 {
		t.Errorf("%d VMs, want one", n)
	}
	// Leaves it to the end of the test: the pod ends under its containers.
	d.must(t, "task", "kill", "-s", "KILL", "pod7")
	for _, id := range []string{"pod7", "one7", "three7"} {
		d.await(t, id, "STOPPED")
	}
}
