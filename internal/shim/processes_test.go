package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// installation is a directory with the programs, all of which are this test binary, and a daemon.
type installation struct {
	*world
	bin       string
	namespace string
	bundle    string
}

// install needs root: the state of containers is in /run/containerd.
func install(t *testing.T) *installation {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, as containerd does")
	}
	dir := t.TempDir()
	n := &installation{
		world: &world{t: t, dir: dir, bundle: filepath.Join(dir, "bundle"), daemon: newDaemon(t, filepath.Join(dir, "ttrpc"))},
		bin:   filepath.Join(dir, "bin"), namespace: fmt.Sprintf("unit-%d", os.Getpid()), bundle: filepath.Join(dir, "bundle"),
	}
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.MkdirAll(n.bin, 0o755))
	for _, name := range []string{shimProgram, lucidProgram} {
		must(t, os.WriteFile(filepath.Join(n.bin, name), exe, 0o755))
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Join(stateRoot, n.namespace)) })
	return n
}

// shim runs an action as containerd does.
func (n *installation) shim(stdin []byte, env []string, args ...string) []byte {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.bin, shimProgram), append([]string{
		"-namespace", n.namespace, "-address", filepath.Join(n.dir, "sock"), "-publish-binary", "/usr/bin/containerd", "-id", "c1",
	}, args...)...)
	cmd.Dir, cmd.Stdin = n.bundle, bytes.NewReader(stdin)
	cmd.Env = append(append(os.Environ(), "TTRPC_ADDRESS="+n.daemon.path), env...)
	// Both, as containerd reads them.
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func (n *installation) connect(address string) {
	n.t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	must(n.t, err)
	n.client = ttrpc.NewClient(conn)
	n.t.Cleanup(func() { _ = n.client.Close() })
	n.TTRPCTaskService = task.NewTTRPCTaskClient(n.client)
}

// serverPid is the server process.
func (n *installation) serverPid() int {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.bundle, pidFile))
	must(n.t, err)
	pid, err := strconv.Atoi(string(data))
	must(n.t, err)
	return pid
}

func (n *installation) wantNothing(address string) {
	n.t.Helper()
	eventually(n.t, "the server ends", func() bool { return gone(n.t, n.serverPid()) })
	if _, err := os.Stat(strings.TrimPrefix(address, "unix://")); !os.IsNotExist(err) {
		n.t.Errorf("socket: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(stateRoot, n.namespace)); len(left) > 0 {
		n.t.Errorf("state: %v", left)
	}
	if data, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(data), n.bundle) {
		n.t.Error("the root file system is still mounted")
	}
}

// gone says that a process has ended; nobody may have waited for it.
func gone(t *testing.T, pid int) bool {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

// begin starts the shim and makes a running container whose root file system is mounted.
func (n *installation) begin(address string) uint32 {
	n.t.Helper()
	n.connect(address)
	n.config("sleep")
	lower := filepath.Join(n.dir, "lower")
	must(n.t, os.MkdirAll(lower, 0o755))
	resp, err := n.Create(n.t.Context(), &task.CreateTaskRequest{ID: "c1", Bundle: n.bundle, Rootfs: []*types.Mount{
		{Type: "bind", Source: lower, Options: []string{"rbind", "ro"}},
	}})
	must(n.t, err)
	n.start("")
	return resp.Pid
}

// Each dialect is answered in kind, and what it starts lives and ends.
func TestStart(t *testing.T) {
	n := install(t)
	must(t, os.MkdirAll(n.bundle, 0o755))
	params := append(field(1, "c1"), field(2, n.namespace)...)
	params = append(params, field(9, filepath.Join(n.dir, "s"))...)
	for _, c := range []struct {
		name  string
		env   []string
		stdin []byte
		parse func([]byte) string
	}{
		{"plain", nil, nil, func(b []byte) string { return string(b) }},
		{"json", []string{"MAX_SHIM_VERSION=2"}, unhex(t, runtimeOptions), func(b []byte) string {
			var a struct{ Address string }
			must(t, json.Unmarshal(b, &a))
			return a.Address
		}},
		{"protobuf", []string{"MAX_SHIM_VERSION=3"}, params, func(b []byte) string {
			var r bootstrap.BootstrapResult
			must(t, proto.Unmarshal(b, &r))
			if !strings.HasPrefix(r.Address, "unix://"+n.dir+"/s/") {
				t.Errorf("address %q is not in the directory that was asked for", r.Address)
			}
			return r.Address
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := c.parse(n.shim(c.stdin, c.env, "start"))
			pid := n.begin(address)
			if data, err := os.ReadFile(filepath.Join(n.bundle, addressFile)); err != nil || string(data) != address {
				t.Errorf("address file: %q, %v", data, err)
			}
			_, err := n.Kill(t.Context(), &task.KillRequest{ID: "c1", Signal: 15})
			must(t, err)
			if code := n.wait(""); code != 128+15 {
				t.Errorf("exit status %d", code)
			}
			n.delete("")
			_, err = n.Shutdown(t.Context(), &task.ShutdownRequest{ID: "c1"})
			must(t, err)
			n.wantNothing(address)
			if !gone(t, int(pid)) {
				t.Error("the sandbox process is left")
			}
		})
	}
	n.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete",
		"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
}

// A copy of the shim elsewhere is the installed one, which it finds in the PATH.
func TestCopiedShim(t *testing.T) {
	n := install(t)
	must(t, os.MkdirAll(n.bundle, 0o755))
	installed := n.bin
	n.bin = t.TempDir()
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(n.bin, shimProgram), exe, 0o755))
	path := []string{"PATH=" + installed}
	n.begin(string(n.shim(nil, path, "start")))
	must(t, proto.Unmarshal(n.shim(nil, path, "-bundle", n.bundle, "delete"), &task.DeleteResponse{}))
	eventually(t, "the server ends", func() bool { return gone(t, n.serverPid()) })
}

// A containerd that dies before it has read the answer leaves no server behind.
func TestStartUnheard(t *testing.T) {
	n := install(t)
	must(t, os.MkdirAll(n.bundle, 0o755))
	r, w, err := os.Pipe()
	must(t, err)
	must(t, r.Close())
	cmd := exec.Command(filepath.Join(n.bin, shimProgram), "-namespace", n.namespace, "-address", filepath.Join(n.dir, "sock"), "-id", "c1", "start")
	cmd.Dir, cmd.Env, cmd.Stdout = n.bundle, append(os.Environ(), "TTRPC_ADDRESS="+n.daemon.path), w
	err = cmd.Run()
	must(t, w.Close())
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit status 1", err)
	}
	address, err := os.ReadFile(filepath.Join(n.bundle, addressFile))
	must(t, err)
	n.wantNothing(string(address))
}

// A shim that is killed takes its VM along, and `delete` the rest. One that hangs is killed by it.
func TestDelete(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		t.Run(sig.String(), func(t *testing.T) {
			n := install(t)
			n.world.t, n.t = t, t
			must(t, os.MkdirAll(n.bundle, 0o755))
			address := string(n.shim(nil, nil, "start"))
			pid := n.begin(address)
			must(t, unix.Kill(n.serverPid(), sig))
			if sig == unix.SIGKILL {
				eventually(t, "the VM ends", func() bool { return gone(t, int(pid)) })
			}
			begin := time.Now()
			var r task.DeleteResponse
			must(t, proto.Unmarshal(n.shim(nil, nil, "-bundle", n.bundle, "delete"), &r))
			if took := time.Since(begin); took > 5*time.Second { // containerd's limit
				t.Errorf("it took %v", took)
			}
			if r.ExitStatus != 137 || r.Pid != pid || r.ExitedAt.AsTime().IsZero() {
				t.Errorf("%v", &r)
			}
			if !gone(t, int(pid)) {
				t.Error("the sandbox process is left")
			}
			n.wantNothing(address)
			// Once more, with nothing there.
			must(t, proto.Unmarshal(n.shim(nil, nil, "-bundle", n.bundle, "delete"), &r))
		})
	}
}

// -info and -v.
func TestInfo(t *testing.T) {
	n := install(t)
	must(t, os.MkdirAll(n.bundle, 0o755))
	var info types.RuntimeInfo
	must(t, proto.Unmarshal(n.shim(unhex(t, runtimeOptions), nil, "-info"), &info))
	if info.Name != runtimeName || info.Version.GetVersion() != "test" || info.Options.GetTypeUrl() != "runtimeoptions.v1.Options" ||
		!strings.Contains(string(info.Features.GetValue()), `"rro"`) {
		t.Errorf("%v", &info)
	}
	if out := n.shim(nil, nil, "-v"); !strings.Contains(string(out), "version test") {
		t.Errorf("%q", out)
	}
}

// Without lucid beside it the shim says so at once, on the stream that containerd shows.
func TestNoLucid(t *testing.T) {
	n := install(t)
	must(t, os.MkdirAll(n.bundle, 0o755))
	must(t, os.Remove(filepath.Join(n.bin, lucidProgram)))
	cmd := exec.Command(filepath.Join(n.bin, shimProgram), "-namespace", n.namespace, "-id", "c1", "start")
	cmd.Dir, cmd.Env = n.bundle, append(os.Environ(), "PATH=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no program "+filepath.Join(n.bin, lucidProgram)) || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%q, %v", out, err)
	}
}
