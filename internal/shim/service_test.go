package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// world is a shim's service behind a socket, a containerd that takes its events, and a bundle.
type world struct {
	t *testing.T
	task.TTRPCTaskService
	client *ttrpc.Client
	rt     *runtime.Runtime
	daemon *daemon
	dir    string
	bundle string
	exited chan struct{}
	log    *text
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, dir: dir, bundle: filepath.Join(dir, "bundle"), exited: make(chan struct{}), log: &text{}}
	w.daemon = newDaemon(t, filepath.Join(dir, "ttrpc"))
	log := slog.New(slog.NewTextHandler(w.log, nil))
	program, err := os.Executable() // by its path, as the shim calls lucid
	must(t, err)
	rt, err := runtime.New(runtime.Config{
		Root: filepath.Join(dir, "state"), Sandbox: []string{program, fakeSandbox}, Templates: filepath.Join(dir, "templates"), StandIn: []string{"/proc/self/exe", fakeStandIn}, Log: log,
	})
	must(t, err)
	w.rt = rt
	c := &call{id: "c1", namespace: "default", ttrpc: w.daemon.path}
	events := newPublisher(c.ttrpc, c.namespace, log)
	t.Cleanup(func() { events.close(5 * time.Second) })
	server, err := ttrpc.NewServer()
	must(t, err)
	s := newService(c, rt, events, log, sync.OnceFunc(func() { close(w.exited) }))
	register(server, s)
	registerSandbox(server, s)
	l, err := net.Listen("unix", filepath.Join(dir, "shim"))
	must(t, err)
	go func() { _ = server.Serve(context.Background(), l) }()
	t.Cleanup(func() { _ = server.Close() })
	conn, err := net.Dial("unix", l.Addr().String())
	must(t, err)
	w.client = ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = w.client.Close() })
	w.TTRPCTaskService = task.NewTTRPCTaskClient(w.client)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// config writes the bundle of a program.
func (w *world) config(args ...string) { w.t.Helper(); w.configOf(w.bundle, nil, args...) }

func (w *world) configOf(bundle string, annotations map[string]string, args ...string) {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o755))
	kernel := filepath.Join(bundle, "kernel")
	must(w.t, os.WriteFile(kernel, nil, 0o644))
	spec := oci.Example()
	spec.Process.Terminal, spec.Process.Args = false, args
	spec.Linux.CgroupsPath = ""
	spec.Annotations = annotations
	spec.VM = &specs.VM{Kernel: specs.VMKernel{Path: kernel, InitRD: kernel}}
	data, err := json.Marshal(spec)
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(bundle, oci.ConfigFile), data, 0o644))
}

// fifo makes one and returns its path.
func (w *world) fifo(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	must(w.t, unix.Mkfifo(path, 0o600))
	return path
}

// create makes the container c1. Its files are those of r.
func (w *world) create(r *task.CreateTaskRequest, args ...string) uint32 {
	w.t.Helper()
	w.config(args...)
	r.ID, r.Bundle = "c1", w.bundle
	resp, err := w.Create(w.t.Context(), r)
	must(w.t, err)
	w.t.Cleanup(func() {
		ctx := context.Background()
		_, _ = w.Kill(ctx, &task.KillRequest{ID: "c1", Signal: 9})
		_, _ = w.Wait(ctx, &task.WaitRequest{ID: "c1"})
		_, _ = w.Delete(ctx, &task.DeleteRequest{ID: "c1"})
	})
	return resp.Pid
}

func (w *world) start(execID string) uint32 {
	w.t.Helper()
	resp, err := w.Start(w.t.Context(), &task.StartRequest{ID: "c1", ExecID: execID})
	must(w.t, err)
	return resp.Pid
}

func (w *world) wait(execID string) uint32 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	resp, err := w.Wait(ctx, &task.WaitRequest{ID: "c1", ExecID: execID})
	must(w.t, err)
	if resp.ExitedAt.AsTime().IsZero() {
		w.t.Error("no time of the exit")
	}
	return resp.ExitStatus
}

func (w *world) delete(execID string) *task.DeleteResponse {
	w.t.Helper()
	resp, err := w.Delete(w.t.Context(), &task.DeleteRequest{ID: "c1", ExecID: execID})
	must(w.t, err)
	return resp
}

func (w *world) status(execID string) tasktypes.Status {
	w.t.Helper()
	r, err := w.State(w.t.Context(), &task.StateRequest{ID: "c1", ExecID: execID})
	must(w.t, err)
	return r.Status
}

// exec announces a process.
func (w *world) exec(id string, r *task.ExecProcessRequest, args ...string) {
	w.t.Helper()
	data, err := json.Marshal(&specs.Process{Args: args, Cwd: "/"})
	must(w.t, err)
	r.ID, r.ExecID, r.Spec = "c1", id, &anypb.Any{Value: data}
	_, err = w.Exec(w.t.Context(), r)
	must(w.t, err)
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%v, want the code %v", err, want)
	}
}

// One life, and what containerd hears of it.
func TestLife(t *testing.T) {
	w := newWorld(t)
	out, errs := w.fifo("out"), w.fifo("err")
	stdout, stderr := readAll(t, out), readAll(t, errs)
	pid := w.create(&task.CreateTaskRequest{Stdout: out, Stderr: errs}, "print", "2", "text")
	if s := w.status(""); s != tasktypes.Status_CREATED {
		t.Errorf("status %v", s)
	}
	_, err := w.Shutdown(t.Context(), &task.ShutdownRequest{ID: "c1"})
	must(t, err)
	if got := w.start(""); got != pid {
		t.Errorf("pid %d, and %d before", got, pid)
	}
	if code := w.wait(""); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if s := w.status(""); s != tasktypes.Status_STOPPED {
		t.Errorf("status %v", s)
	}
	_, err = w.Kill(t.Context(), &task.KillRequest{ID: "c1", Signal: 15})
	wantCode(t, err, codes.NotFound)
	if !strings.Contains(err.Error(), "process already finished") {
		t.Errorf("%v", err)
	}
	if r := w.delete(""); r.Pid != pid || r.ExitStatus != 0 {
		t.Errorf("%v", r)
	}
	if got := <-stdout; got != "texttext" {
		t.Errorf("stdout %q", got)
	}
	if got := <-stderr; got != "text" {
		t.Errorf("stderr %q", got)
	}
	_, err = w.State(t.Context(), &task.StateRequest{ID: "c1"})
	wantCode(t, err, codes.NotFound)
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
	e := decode(t, w.daemon, 2, &apievents.TaskExit{})
	if e.ContainerID != "c1" || e.ID != "c1" || e.Pid != pid {
		t.Errorf("exit event %v", e)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state", "c1")); !os.IsNotExist(err) {
		t.Errorf("state directory: %v", err)
	}
	select {
	case <-w.exited:
		t.Fatal("Shutdown was obeyed while there was a container")
	default:
	}
	_, err = w.Shutdown(t.Context(), &task.ShutdownRequest{ID: "c1"})
	must(t, err)
	<-w.exited
}

// A process that ends at once: still its start comes before its exit.
func TestEventsOfAShortLife(t *testing.T) {
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := newWorld(t)
			w.create(&task.CreateTaskRequest{}, "exit", "7")
			w.start("")
			if code := w.wait(""); code != 7 {
				t.Errorf("exit status %d", code)
			}
			w.delete("")
			w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
		})
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	pid := w.create(&task.CreateTaskRequest{}, "sleep")
	w.start("")
	in, out := w.fifo("in"), w.fifo("out")
	stdout := readAll(t, out)
	w.exec("e1", &task.ExecProcessRequest{Stdin: in, Stdout: out}, "cat")
	_, err := w.Exec(t.Context(), &task.ExecProcessRequest{ID: "c1", ExecID: "e1", Spec: &anypb.Any{Value: []byte(`{"args":["x"],"cwd":"/"}`)}})
	wantCode(t, err, codes.AlreadyExists)
	if s := w.status("e1"); s != tasktypes.Status_CREATED {
		t.Errorf("status %v", s)
	}
	_, err = w.Kill(t.Context(), &task.KillRequest{ID: "c1", ExecID: "e1", Signal: 15})
	wantCode(t, err, codes.FailedPrecondition)
	execPid := w.start("e1")
	if execPid == pid || execPid == 0 {
		t.Errorf("pids %d and %d", pid, execPid)
	}
	pids, err := w.Pids(t.Context(), &task.PidsRequest{ID: "c1"})
	must(t, err)
	if len(pids.Processes) != 2 || pids.Processes[0].Pid != pid || pids.Processes[1].Pid != execPid {
		t.Errorf("%v", pids)
	}
	f, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("in and out")
	must(t, err)
	_, err = w.CloseIO(t.Context(), &task.CloseIORequest{ID: "c1", ExecID: "e1", Stdin: true})
	must(t, err)
	must(t, f.Close())
	if code := w.wait("e1"); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := <-stdout; got != "in and out" {
		t.Errorf("stdout %q", got)
	}
	w.delete("e1")
	_, err = w.State(t.Context(), &task.StateRequest{ID: "c1", ExecID: "e1"})
	wantCode(t, err, codes.NotFound)

	w.exec("e2", &task.ExecProcessRequest{}, "nosuch")
	_, err = w.Start(t.Context(), &task.StartRequest{ID: "c1", ExecID: "e2"})
	if err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("%v", err)
	}
	w.delete("e2")

	// One that is killed, and one that the container's end takes along.
	w.exec("e3", &task.ExecProcessRequest{}, "sleep")
	w.start("e3")
	_, err = w.Kill(t.Context(), &task.KillRequest{ID: "c1", ExecID: "e3", Signal: 15})
	must(t, err)
	if code := w.wait("e3"); code != 128+15 {
		t.Errorf("exit status %d", code)
	}
	w.exec("e4", &task.ExecProcessRequest{}, "sleep")
	w.start("e4")
	_, err = w.Delete(t.Context(), &task.DeleteRequest{ID: "c1", ExecID: "e4"})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = w.Kill(t.Context(), &task.KillRequest{ID: "c1", Signal: 9, All: true})
	must(t, err)
	if code := w.wait("e4"); code != 137 {
		t.Errorf("exit status %d", code)
	}
	if code := w.wait(""); code != 137 {
		t.Errorf("exit status %d", code)
	}
	// The shim of a stopped container has a process, or a new containerd would end it.
	pids, err = w.Pids(t.Context(), &task.PidsRequest{ID: "c1"})
	must(t, err)
	if len(pids.Processes) != 1 || pids.Processes[0].Pid != pid {
		t.Errorf("%v", pids)
	}
	w.exec("e5", &task.ExecProcessRequest{}, "sleep")
	_, err = w.Start(t.Context(), &task.StartRequest{ID: "c1", ExecID: "e5"})
	wantCode(t, err, codes.FailedPrecondition)
	w.delete("")
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/exec-added",
		"/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/exit", "/tasks/exec-added", "/tasks/delete")
	if e := decode(t, w.daemon, 11, &apievents.TaskExit{}); e.ID != "e4" {
		t.Errorf("%v: the container's exit comes last", e)
	}
}

func TestOperations(t *testing.T) {
	w := newWorld(t)
	w.create(&task.CreateTaskRequest{}, "sleep")
	ctx := t.Context()
	w.start("")
	_, err := w.Start(ctx, &task.StartRequest{ID: "c1"})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = w.Create(ctx, &task.CreateTaskRequest{ID: "c1", Bundle: w.bundle})
	wantCode(t, err, codes.AlreadyExists)
	_, err = w.Create(ctx, &task.CreateTaskRequest{ID: "c2", Bundle: w.bundle})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = w.Resume(ctx, &task.ResumeRequest{ID: "c1"})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = w.Pause(ctx, &task.PauseRequest{ID: "c1"})
	must(t, err)
	if s := w.status(""); s != tasktypes.Status_PAUSED {
		t.Errorf("status %v", s)
	}
	_, err = w.Resume(ctx, &task.ResumeRequest{ID: "c1"})
	must(t, err)
	if s := w.status(""); s != tasktypes.Status_RUNNING {
		t.Errorf("status %v", s)
	}
	_, err = w.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: "c1"})
	wantCode(t, err, codes.Unimplemented)
	_, err = w.Update(ctx, &task.UpdateTaskRequest{ID: "c1", Resources: &anypb.Any{Value: []byte(`{"pids":{"limit":77}}`)}})
	must(t, err)
	_, err = w.Update(ctx, &task.UpdateTaskRequest{ID: "c1", Resources: &anypb.Any{Value: []byte(`null`)}})
	wantCode(t, err, codes.InvalidArgument)
	st, err := w.Stats(ctx, &task.StatsRequest{ID: "c1"})
	must(t, err)
	if st.Stats.TypeUrl != "io.containerd.cgroups.v2.Metrics" {
		t.Errorf("counters are a %s", st.Stats.TypeUrl)
	}
	_, err = w.Delete(ctx, &task.DeleteRequest{ID: "c1"})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = w.ResizePty(ctx, &task.ResizePtyRequest{ID: "c1", Width: 1 << 16, Height: 1})
	wantCode(t, err, codes.InvalidArgument)
	for _, r := range []*task.ExecProcessRequest{
		{ID: "c1", ExecID: "e"},
		{ID: "c1", ExecID: "e", Spec: &anypb.Any{Value: []byte("null")}},
		{ID: "c1", ExecID: "e", Spec: &anypb.Any{Value: []byte(`{"args":[],"cwd":"/"}`)}},
		{ID: "c1"},
	} {
		_, err = w.Exec(ctx, r)
		wantCode(t, err, codes.InvalidArgument)
	}
	conn, err := w.Connect(ctx, &task.ConnectRequest{ID: "c1"})
	must(t, err)
	if int(conn.ShimPid) != os.Getpid() || conn.TaskPid == 0 {
		t.Errorf("%v", conn)
	}
	// Under its other name.
	var resp task.StateResponse
	must(t, w.client.Call(ctx, "containerd.task.v3.Task", "State", &task.StateRequest{ID: "c1"}, &resp))
	if resp.Status != tasktypes.Status_RUNNING {
		t.Errorf("v3: %v", &resp)
	}
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed")
}

// What fails leaves nothing, and the shim can be used again.
func TestCreateFails(t *testing.T) {
	w := newWorld(t)
	// An answer says that the server has accepted the connection: a file more, which the first count needs.
	_, err := w.Connect(t.Context(), &task.ConnectRequest{ID: "c1"})
	must(t, err)
	for _, c := range []struct {
		name string
		args []string
		req  *task.CreateTaskRequest
		want string
	}{
		{"no such program", []string{"nosuch"}, &task.CreateTaskRequest{}, "executable file not found"},
		{"no such fifo", []string{"sleep"}, &task.CreateTaskRequest{Stdout: filepath.Join(w.dir, "none")}, "none"},
		{"not a fifo", []string{"sleep"}, &task.CreateTaskRequest{Stdout: "/dev/null"}, "not a fifo"},
		{"unknown kind of output", []string{"sleep"}, &task.CreateTaskRequest{Stdout: "npipe:///x"}, "npipe"},
		{"no such logging program", []string{"sleep"}, &task.CreateTaskRequest{Stdout: "binary:///no/such"}, "logging program"},
		{"terminal", []string{"sleep"}, &task.CreateTaskRequest{Terminal: true}, "process.terminal"},
		{"checkpoint", []string{"sleep"}, &task.CreateTaskRequest{Checkpoint: "/x"}, "restore"},
		{"mount", []string{"sleep"}, &task.CreateTaskRequest{Rootfs: []*types.Mount{{Type: "nosuchfs", Source: "none"}}}, "mount"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := openFiles(t)
			w.config(c.args...)
			r := c.req
			r.ID, r.Bundle = "c1", w.bundle
			_, err := w.Create(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
			if entries, _ := os.ReadDir(filepath.Join(w.dir, "state")); len(entries) > 0 {
				t.Errorf("left: %v", entries)
			}
			eventually(t, fmt.Sprintf("files are closed, as before: %v", before), func() bool { return len(openFiles(t)) <= len(before) })
		})
	}
	w.create(&task.CreateTaskRequest{}, "exit", "0")
	w.start("")
	w.wait("")
	w.delete("")
}

// TestTemplateWord: the environment chooses where VMs begin, and an annotation outranks it.
func TestTemplateWord(t *testing.T) {
	w := newWorld(t)
	for word, want := range map[string]string{"../x": "$LUCID_TEMPLATE: ", "no-such-template": "template does not exist: "} {
		t.Setenv(runtime.TemplateEnv, word)
		w.config("exit", "0")
		if _, err := w.Create(t.Context(), &task.CreateTaskRequest{ID: "c1", Bundle: w.bundle}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", word, err, want)
		}
	}
	spec, err := oci.Load(w.bundle)
	must(t, err)
	spec.Annotations = map[string]string{oci.AnnotationTemplate: "off"}
	data, err := json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.bundle, oci.ConfigFile), data, 0o644))
	t.Setenv(runtime.TemplateEnv, "no-such-template")
	_, err = w.Create(t.Context(), &task.CreateTaskRequest{ID: "c1", Bundle: w.bundle})
	must(t, err)
	w.start("")
	w.wait("")
	w.delete("")
}

func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var all []string
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			all = append(all, e.Name()+" "+target)
		}
	}
	return all
}

// A created container can be deleted: it is killed by that.
func TestDeleteCreated(t *testing.T) {
	w := newWorld(t)
	w.create(&task.CreateTaskRequest{}, "sleep")
	if r := w.delete(""); r.ExitStatus != 137 {
		t.Errorf("%v", r)
	}
	w.daemon.want(t, "/tasks/create", "/tasks/exit", "/tasks/delete")
}

// The sandbox process is killed behind the shim's back.
func TestSandboxKilled(t *testing.T) {
	w := newWorld(t)
	pid := w.create(&task.CreateTaskRequest{}, "sleep")
	w.start("")
	must(t, unix.Kill(int(pid), unix.SIGKILL))
	if code := w.wait(""); code != 137 {
		t.Errorf("exit status %d", code)
	}
	w.delete("")
	w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
}

// readAll reads a fifo to its end.
func readAll(t *testing.T, path string) <-chan string {
	t.Helper()
	result := make(chan string, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			result <- err.Error()
			return
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		if err != nil {
			data = []byte(err.Error())
		}
		result <- string(data)
	}()
	return result
}

func decode[M proto.Message](t *testing.T, d *daemon, i int, m M) M {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if want := string(m.ProtoReflect().Descriptor().FullName()); d.events[i].Event.TypeUrl != want {
		t.Fatalf("event %d is a %s, want %s", i, d.events[i].Event.TypeUrl, want)
	}
	must(t, proto.Unmarshal(d.events[i].Event.Value, m))
	return m
}
