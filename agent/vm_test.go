package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/guest"
	"github.com/lucid-containers/lucid/guest/initramfs"
	"github.com/lucid-containers/lucid/internal/wire"
)

// The tests boot the agent in the guest's kernel under QEMU's interpreter, with
// virtio-serial as the transport and QEMU's 9p server as the share: neither KVM
// nor the rest of this project takes part. The vsock transport is tested with
// the project's own devices, see test/e2e.

const (
	kernelPath = "../guest/out/vmlinux"
	bootLimit  = 2 * time.Minute
)

// vm is a guest with the agent in it.
type vm struct {
	t       *testing.T
	client  *wire.Client
	mux     *wire.Mux
	share   string
	exits   chan *wire.ContainerExited
	ooms    chan *wire.ContainerOOM // has room for what one test makes
	console *lockedBuffer
	exited  chan error // QEMU's end
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bootVM boots a guest and waits for its hello.
func bootVM(t *testing.T) *vm {
	t.Helper()
	if _, err := os.Stat(kernelPath); err != nil {
		t.Skip("no guest kernel: run: make kernel")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("no QEMU: run: apt-get install qemu-system-x86")
	}
	dir, err := os.MkdirTemp("", "lucid-agent-") // short: socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	v := &vm{
		t: t, share: filepath.Join(dir, "share"), console: new(lockedBuffer),
		exits: make(chan *wire.ContainerExited, 100), ooms: make(chan *wire.ContainerOOM, 100), exited: make(chan error, 1),
	}
	buildRootfs(t, filepath.Join(v.share, "root"))
	control, streams := filepath.Join(dir, "c"), filepath.Join(dir, "s")
	cl, sl := listen(t, control), listen(t, streams)
	cmd := v.qemu(dir, control, streams)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { v.exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("console:\n%s", v.console)
		}
	})
	v.mux = wire.NewMux(accept(t, sl))
	v.client = wire.NewClient(accept(t, cl), func(e wire.Event) {
		if x, err := e.Exited(); err == nil && e.Method == wire.EventContainerExited {
			v.exits <- x
		}
		if x, err := e.OOM(); err == nil && e.Method == wire.EventContainerOOM {
			v.ooms <- x
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	h, err := v.client.Hello(ctx)
	if err != nil {
		t.Fatalf("no hello: %v\n%s", err, v.console)
	}
	if !strings.Contains(h.Kernel, ".") || h.UptimeNS <= 0 {
		t.Errorf("hello %+v", h)
	}
	return v
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// buildRootfs makes an image that holds one static program.
func buildRootfs(t *testing.T, root string) {
	t.Helper()
	for _, d := range []string{"bin", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	goBuild(t, filepath.Join(root, "bin/prog"), "./container/testdata/prog")
}

func goBuild(t *testing.T, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
}

func (v *vm) qemu(dir, control, streams string) *exec.Cmd {
	v.t.Helper()
	agentPath, initrd := filepath.Join(dir, "agent"), filepath.Join(dir, "initramfs")
	goBuild(v.t, agentPath, "../cmd/lucid-agent")
	binary, err := os.ReadFile(agentPath)
	if err != nil {
		v.t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := initramfs.Write(&archive, initramfs.Agent(binary)); err != nil {
		v.t.Fatal(err)
	}
	if err := os.WriteFile(initrd, archive.Bytes(), 0o644); err != nil {
		v.t.Fatal(err)
	}
	line := strings.Join(append(guest.Cmdline(), "lucid.transport=serial", "lucid.debug"), " ")
	cmd := exec.Command("qemu-system-x86_64",
		"-M", "microvm,acpi=off,rtc=on,pic=on,pit=on,isa-serial=off,auto-kernel-cmdline=on",
		"-accel", "tcg", "-cpu", "max", "-m", "128", "-smp", "1",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", kernelPath, "-initrd", initrd, "-append", line,
		"-chardev", "stdio,id=console,signal=off",
		"-chardev", "socket,id=control,path="+control, "-chardev", "socket,id=streams,path="+streams,
		"-device", "virtio-serial-device,max_ports=4", "-device", "virtconsole,chardev=console",
		"-device", "virtserialport,chardev=control,name="+wire.ControlPortName,
		"-device", "virtserialport,chardev=streams,name="+wire.StreamPortName,
		"-fsdev", "local,id=files,security_model=none,path="+v.share,
		"-device", "virtio-9p-device,fsdev=files,mount_tag="+wire.ShareTag,
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng")
	cmd.Stdout, cmd.Stderr = v.console, v.console
	return cmd
}

func (v *vm) call(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	return v.client.Call(ctx, method, params, result)
}

func (v *vm) mustCall(method string, params, result any) {
	v.t.Helper()
	if err := v.call(method, params, result); err != nil {
		v.t.Fatalf("%s: %v", method, err)
	}
}

func (v *vm) waitExit() *wire.ContainerExited {
	v.t.Helper()
	select {
	case e := <-v.exits:
		return e
	case <-time.After(bootLimit):
		v.t.Fatal("no exit report")
		return nil
	}
}

// open gives the call the ids of stdin, stdout and stderr, and waits for the
// streams after it.
func (v *vm) open(call func(wire.IO) error) (in, out, errs wire.Stream, err error) {
	v.t.Helper()
	var ids [3]uint64
	var exp [3]*wire.Expected
	for i := range ids {
		ids[i] = wire.NewStreamID()
		var eerr error
		if exp[i], eerr = v.mux.Expect(ids[i]); eerr != nil {
			v.t.Fatal(eerr)
		}
		defer exp[i].Cancel()
	}
	if err := call(wire.IO{Stdin: ids[0], Stdout: ids[1], Stderr: ids[2]}); err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var s [3]wire.Stream
	for i := range s {
		var eerr error
		if s[i], eerr = exp[i].Wait(ctx); eerr != nil {
			v.t.Fatal(eerr)
		}
	}
	return s[0], s[1], s[2], nil
}

// m is a JSON object.
type m = map[string]any

func processSpec(args ...string) m {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"}
	return m{
		"args": args, "cwd": "/tmp", "env": []string{"PATH=/bin"}, "user": m{"uid": 0, "gid": 0},
		"capabilities": m{"bounding": caps, "effective": caps, "permitted": caps},
		"rlimits":      []m{{"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 300000}},
		"oomScoreAdj":  100,
	}
}

func containerSpec(args ...string) wire.Spec {
	return as[wire.Spec](m{
		"process":  processSpec(args...),
		"hostname": "inner",
		"mounts": []m{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": []string{"nosuid", "noexec", "nodev"}},
			{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
			{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		"linux": m{
			"resources":     m{"memory": m{"limit": 64 << 20}, "pids": m{"limit": 50}, "cpu": m{"quota": 50000, "period": 100000, "shares": 512}},
			"namespaces":    []m{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}},
			"maskedPaths":   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	})
}

// as is a part of config.json as the host sends it.
func as[T any](v m) (t T) {
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		panic(err)
	}
	return t
}

// run runs a container to its end.
func (v *vm) run(id, input string, spec wire.Spec) (stdout, stderr string, status int) {
	v.t.Helper()
	var created wire.Created
	in, out, errs, err := v.open(func(ids wire.IO) error {
		return v.call(wire.MethodCreateContainer, &wire.CreateContainer{ID: id, Spec: spec, Rootfs: "root", IO: ids}, &created)
	})
	if err != nil {
		v.t.Fatal(err)
	}
	if created.Pid <= 1 || len(created.Warnings) != 0 {
		v.t.Errorf("created %+v", created)
	}
	v.mustCall(wire.MethodStartContainer, &wire.StartContainer{ID: id}, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.WriteString(in, input)
		_ = in.CloseWrite()
	})
	for s, to := range map[wire.Stream]*string{out: &stdout, errs: &stderr} {
		wg.Go(func() {
			b, _ := io.ReadAll(s)
			*to = string(b)
		})
	}
	e := v.waitExit()
	wg.Wait()
	if e.ID != id || e.Stdout != uint64(len(stdout)) || e.Stderr != uint64(len(stderr)) {
		v.t.Errorf("exit report %+v for %d and %d bytes", e, len(stdout), len(stderr))
	}
	v.mustCall(wire.MethodDeleteContainer, &wire.DeleteContainer{ID: id}, nil)
	return stdout, stderr, e.Status
}
