//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shimRuntime is what users of containerd write.
const shimRuntime = "io.containerd.lucid.v2"

// shimPatience is for what takes a second on an idle machine. A busy one was seen to need minutes for a few calls of ctr.
const shimPatience = 5 * time.Minute

// containerd is a daemon of the test's own. It finds our shim in its PATH.
type containerd struct {
	name   string
	bin    string // directory of containerd and ctr
	cri    string // configuration of the CRI plugin; empty: without it
	format int    // of the configuration; 0: 2, which all know
	env    []string
	// templates is the store from which the VMs have to begin; empty: nobody looks.
	templates string
	begun     int // VMs that were seen to do that
	dir       string
	log       string
	events    string
	cmd       *exec.Cmd
	exited    chan struct{}
	stop      []func()
}

// TestShimContainerd16 uses Debian's containerd, which hears the plain dialect.
func TestShimContainerd16(t *testing.T) {
	testShim(t, &containerd{name: "16", bin: "/usr/bin"}, "apt-get install containerd")
}

// TestShimContainerd2 uses a containerd v2, which hears protobuf.
func TestShimContainerd2(t *testing.T) {
	testShim(t, &containerd{name: "2", bin: filepath.Join(world.bin, "containerd-v2")}, "make containerd-v2")
}

// newContainerd starts a daemon for the length of a test; install says where its programs come from.
func newContainerd(t *testing.T, d *containerd, install string) *containerd {
	t.Helper()
	for _, name := range []string{"containerd", "ctr"} {
		if _, err := os.Stat(filepath.Join(d.bin, name)); err != nil {
			t.Fatalf("%v: %s", err, install)
		}
	}
	d.dir = filepath.Join(world.dir, "containerd"+d.name)
	d.log, d.events = filepath.Join(d.dir, "log"), filepath.Join(d.dir, "events")
	must(t, os.MkdirAll(d.dir, 0o711))
	// The overlayfs snapshotter wants no overlay below it.
	must(t, os.NewSyscallError("mount", unix.Mount("containerd", d.dir, "tmpfs", 0, "mode=711")))
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	disabled := `"io.containerd.internal.v1.opt"`
	if d.cri == "" {
		disabled += `, "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"`
	}
	must(t, os.WriteFile(filepath.Join(d.dir, "config.toml"), fmt.Appendf(nil, `version = %[4]d
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = [%[2]s]
[grpc]
  address = "%[1]s/c.sock"
%[3]s`, d.dir, disabled, d.cri, cmp.Or(d.format, 2)), 0o644))
	d.start(t)
	t.Cleanup(func() { d.end(t) })
	t.Cleanup(func() {
		if t.Failed() {
			data, _ := os.ReadFile(d.log)
			t.Logf("containerd:\n%s", tail(string(data)))
		}
	})
	return d
}

func testShim(t *testing.T, d *containerd, install string) {
	newContainerd(t, d, install)
	for _, c := range []struct {
		name string
		test func(*testing.T, *containerd)
	}{
		{"Run", shimRun},
		{"Terminal", shimTerminal},
		{"Operate", shimOperate},
		{"Memory", shimMemory},
		{"OOM", shimOOM},
		{"ClientComesBack", shimClientComesBack},
		{"Restart", shimRestart},
		{"SandboxKilled", shimSandboxKilled},
		{"ShimKilled", shimShimKilled},
		{"Snapshotters", shimSnapshotters},
		{"Failures", shimFailures},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, d) })
	}
	t.Run("NothingLeft", func(t *testing.T) { d.wantNothing(t) })
}

// start runs the daemon and waits for its answer.
func (d *containerd) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(t, err)
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.bin, "containerd"), "-c", filepath.Join(d.dir, "config.toml"), "-l", "debug")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "PATH="+world.bin+":/usr/sbin:/usr/bin:/sbin:/bin")
	d.cmd.Env = append(d.cmd.Env, d.env...)
	must(t, d.cmd.Start())
	exited := make(chan struct{})
	cmd := d.cmd
	go func() { _ = cmd.Wait(); close(exited) }()
	d.exited = exited
	for begin := time.Now(); d.ctr(t, nil, "version").code != 0; time.Sleep(200 * time.Millisecond) {
		if time.Since(begin) > shimPatience {
			data, _ := os.ReadFile(d.log)
			t.Fatalf("containerd does not come up:\n%s", tail(string(data)))
		}
	}
	out, err := os.OpenFile(d.events, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(t, err)
	defer out.Close()
	events := exec.Command(filepath.Join(d.bin, "ctr"), "-a", d.socket(), "-n", "e2e", "events")
	events.Stdout, events.Stderr = out, out
	must(t, events.Start())
	d.stop = append(d.stop, func() { _ = events.Process.Kill(); _ = events.Wait() })
}

func (d *containerd) socket() string { return filepath.Join(d.dir, "c.sock") }

// end ends the daemon, by a signal that it cannot notice if kill is what the test is about.
func (d *containerd) end(t *testing.T) {
	t.Helper()
	for _, stop := range d.stop {
		stop()
	}
	d.stop = nil
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(time.Minute):
		t.Error("containerd does not end")
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

func (d *containerd) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(d.bin, "ctr"), append([]string{"-a", d.socket(), "-n", "e2e"}, args...)...)
}

// ctr runs containerd's client.
func (d *containerd) ctr(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return finish(t, d.command(ctx, args...), stdin)
}

func (d *containerd) must(t *testing.T, args ...string) string {
	t.Helper()
	r := d.ctr(t, nil, args...)
	r.wantCode(t, 0)
	return r.stdout
}

// run are the arguments of `ctr run`, on a root file system of the test's own.
func (d *containerd) run(t *testing.T, id string, options []string, args ...string) []string {
	t.Helper()
	all := append([]string{"run", "--runtime", shimRuntime}, options...)
	return append(append(all, "--rootfs", newBundle(t).root, id), args...)
}

// background starts a container that is removed at the end of the test.
func (d *containerd) background(t *testing.T, id string, options []string, args ...string) {
	t.Helper()
	d.must(t, d.run(t, id, append([]string{"-d"}, options...), args...)...)
	t.Cleanup(func() {
		d.ctr(t, nil, "task", "kill", "-s", "KILL", id)
		d.ctr(t, nil, "task", "rm", "-f", id)
		d.ctr(t, nil, "container", "rm", id)
	})
	d.wantBegun(t)
}

// wantBegun looks at all VMs: in the lab they are this daemon's.
func (d *containerd) wantBegun(t *testing.T) {
	t.Helper()
	if d.templates == "" {
		return
	}
	for _, pid := range virtualMachinePids(t) {
		if wantBegun(t, pid, d.templates) {
			d.begun++
		}
	}
}

// status is the pid and the status of a task, or empty.
func (d *containerd) status(t *testing.T, id string) (pid, status string) {
	t.Helper()
	for l := range strings.Lines(d.must(t, "task", "ls")) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == id {
			return f[1], f[2]
		}
	}
	return "", ""
}

func (d *containerd) await(t *testing.T, id, want string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		_, got := d.status(t, id)
		if got == want {
			return
		}
		if time.Since(begin) > shimPatience {
			t.Fatalf("status %q of %s, want %q", got, id, want)
		}
	}
}

// wantEvents compares the topics of a container's events. It waits, for they are another client's.
func (d *containerd) wantEvents(t *testing.T, id string, want ...string) {
	t.Helper()
	about := regexp.MustCompile(`(/tasks/[a-z-]+) .*"container_id": ?"` + regexp.QuoteMeta(id) + `"`)
	var got []string
	for begin := time.Now(); time.Since(begin) < shimPatience; time.Sleep(100 * time.Millisecond) {
		data, err := os.ReadFile(d.events)
		must(t, err)
		got = got[:0]
		for _, m := range about.FindAllStringSubmatch(string(data), -1) {
			got = append(got, strings.TrimPrefix(m[1], "/tasks/"))
		}
		if strings.Join(got, " ") == strings.Join(want, " ") {
			return
		}
	}
	t.Errorf("events of %s: %v, want %v", id, got, want)
}

// wantNothing fails if the shim left anything. Fifos are ctr's: it leaves them when its task is gone before `task rm`.
func (d *containerd) wantNothing(t *testing.T) {
	wantNoSandbox(t)
	for _, pattern := range []string{
		"/run/containerd/s/*", "/run/containerd/lucid/*/*", filepath.Join(d.dir, "state/io.containerd.runtime.v2.task/*/*"),
		filepath.Join(d.dir, "state/io.containerd.sandbox.controller.v1.shim/*/*"),
	} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if strings.Contains(string(mounts), "io.containerd.runtime.v2.task") {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	if pids := shimPids(t, ""); len(pids) > 0 {
		t.Errorf("shims are left: %v", pids)
	}
}

// shimPids are the shim processes of a container, or all.
func shimPids(t *testing.T, id string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var pids []string
	for _, f := range dirs {
		data, err := os.ReadFile(f)
		args := strings.Split(string(data), "\x00")
		if err != nil || filepath.Base(args[0]) != "containerd-shim-lucid-v2" {
			continue
		}
		if id == "" || strings.Contains(string(data), "\x00-id\x00"+id+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}
