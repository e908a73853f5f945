package shim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

type labels = map[string]string

func asSandbox(id string) labels {
	return labels{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": id}
}

func asMember(sandbox string) labels {
	return labels{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox}
}

func asGrouped(group string) labels { return labels{"io.containerd.runc.v2.group": group} }

// add creates a container with a bundle of its own.
func (w *world) add(id string, annotations labels, args ...string) (uint32, error) {
	w.t.Helper()
	bundle := filepath.Join(w.dir, "bundles", id)
	w.configOf(bundle, annotations, args...)
	out := filepath.Join(w.dir, "out-"+id)
	resp, err := w.Create(w.t.Context(), &task.CreateTaskRequest{ID: id, Bundle: bundle, Stdout: "file://" + out})
	if err != nil {
		return 0, err
	}
	w.t.Cleanup(func() {
		ctx := context.Background()
		_, _ = w.Kill(ctx, &task.KillRequest{ID: id, Signal: 9})
		_, _ = w.Wait(ctx, &task.WaitRequest{ID: id})
		_, _ = w.Delete(ctx, &task.DeleteRequest{ID: id})
	})
	return resp.Pid, nil
}

// run adds and starts a container.
func (w *world) run(id string, annotations labels, args ...string) uint32 {
	w.t.Helper()
	pid, err := w.add(id, annotations, args...)
	must(w.t, err)
	_, err = w.Start(w.t.Context(), &task.StartRequest{ID: id})
	must(w.t, err)
	return pid
}

func (w *world) wantExit(id string, code uint32) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	resp, err := w.Wait(ctx, &task.WaitRequest{ID: id})
	must(w.t, err)
	if resp.ExitStatus != code {
		w.t.Errorf("exit status of %s: %d, want %d", id, resp.ExitStatus, code)
	}
}

func (w *world) remove(id string) {
	w.t.Helper()
	_, err := w.Delete(w.t.Context(), &task.DeleteRequest{ID: id})
	must(w.t, err)
}

func (w *world) kill(id string, sig unix.Signal) {
	w.t.Helper()
	_, err := w.Kill(w.t.Context(), &task.KillRequest{ID: id, Signal: uint32(sig)})
	must(w.t, err)
}

// wantState compares the state directories.
func (w *world) wantState(want ...string) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, "state"))
	must(w.t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("state %v, want %v", got, want)
	}
}

// wantServing fails if Shutdown ends the server now.
func (w *world) wantServing(serving bool) {
	w.t.Helper()
	_, err := w.Shutdown(w.t.Context(), &task.ShutdownRequest{ID: "pod"})
	must(w.t, err)
	select {
	case <-w.exited:
		if serving {
			w.t.Error("the server ends while it has containers")
		}
	case <-time.After(50 * time.Millisecond):
		if !serving {
			w.t.Error("the server stays")
		}
	}
}

func TestPod(t *testing.T) {
	w := newWorld(t)
	_, err := w.add("one", asMember("pod"), "sleep")
	wantCode(t, err, codes.FailedPrecondition)
	pod := w.run("pod", asSandbox("pod"), "/pause")
	one, two := w.run("one", asMember("pod"), "sleep"), w.run("two", asMember("pod"), "print", "3", "text")
	if pod == one || one == two || pod == two {
		t.Errorf("pids %d, %d, %d: want three", pod, one, two)
	}
	w.wantExit("two", 0)
	if out, err := os.ReadFile(filepath.Join(w.dir, "out-two")); err != nil || string(out) != "texttexttext" {
		t.Errorf("output %q, %v", out, err)
	}
	for id, annotations := range map[string]labels{"x": nil, "y": asSandbox("y"), "z": asMember("other"), "g": asGrouped("g")} {
		_, err := w.add(id, annotations, "sleep")
		wantCode(t, err, codes.FailedPrecondition)
	}
	_, err = w.add("n", asMember("pod"), "nosuch")
	if err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("%v", err)
	}
	w.wantState("one", "pod", "two")
	w.remove("two")
	w.wantServing(true)
	w.kill("one", unix.SIGTERM)
	w.wantExit("one", 128+15)
	w.remove("one")
	w.run("one", asMember("pod"), "exit", "4") // the same ID again
	w.wantExit("one", 4)
	w.remove("one")
	w.kill("pod", unix.SIGKILL)
	w.wantExit("pod", 137)
	w.remove("pod")
	w.wantState()
	w.wantServing(false)
}

// The end of the sandbox is that of its containers, and which one is deleted first is no matter.
func TestPodEnds(t *testing.T) {
	for _, order := range [][]string{{"pod", "one"}, {"one", "pod"}} {
		w := newWorld(t)
		pid := w.run("pod", asSandbox("pod"), "/pause")
		w.run("one", asMember("pod"), "sleep")
		must(t, unix.Kill(int(pid), unix.SIGKILL))
		for _, id := range order {
			w.wantExit(id, 137)
		}
		for _, id := range order {
			w.remove(id)
		}
		w.wantState()
		w.wantServing(false)
		w.daemon.want(t, "/tasks/create", "/tasks/start", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/exit", "/tasks/delete", "/tasks/delete")
	}
}

// An exec in a member is the member's.
func TestPodExec(t *testing.T) {
	w := newWorld(t)
	w.run("pod", asSandbox("pod"), "/pause")
	w.run("one", asMember("pod"), "sleep")
	out := filepath.Join(w.dir, "exec")
	_, err := w.Exec(t.Context(), &task.ExecProcessRequest{ID: "one", ExecID: "e1", Stdout: "file://" + out, Spec: &anypb.Any{Value: []byte(`{"args":["print","2","x"],"cwd":"/"}`)}})
	must(t, err)
	_, err = w.Start(t.Context(), &task.StartRequest{ID: "one", ExecID: "e1"})
	must(t, err)
	_, err = w.Wait(t.Context(), &task.WaitRequest{ID: "one", ExecID: "e1"})
	must(t, err)
	if got, err := os.ReadFile(out); err != nil || string(got) != "xx" {
		t.Errorf("%q, %v", got, err)
	}
}

// The VM of a group is there for as long as one of its containers.
func TestGroup(t *testing.T) {
	w := newWorld(t)
	vm := groupVM("g")
	_, err := w.add("n", asGrouped("g"), "nosuch")
	if err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("%v", err)
	}
	w.wantState()
	w.run("one", asGrouped("g"), "sleep")
	w.run("two", asGrouped("g"), "sleep")
	w.wantState(vm, "one", "two")
	_, err = w.add("x", asGrouped("h"), "sleep")
	wantCode(t, err, codes.FailedPrecondition)
	w.kill("one", unix.SIGKILL)
	w.wantExit("one", 137)
	w.remove("one")
	w.wantState(vm, "two")
	w.run("one", asGrouped("g"), "exit", "3")
	w.wantExit("one", 3)
	w.kill("two", unix.SIGTERM)
	w.wantExit("two", 143)
	w.remove("two")
	w.remove("one")
	w.wantState()
	w.wantServing(false)
}

// podShim runs an action for a container with a bundle of its own.
func (n *installation) podShim(id string, args ...string) []byte {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.bin, shimProgram), append([]string{
		"-namespace", n.namespace, "-address", filepath.Join(n.dir, "sock"), "-publish-binary", "/usr/bin/containerd", "-id", id,
	}, args...)...)
	cmd.Dir = filepath.Join(n.dir, "bundles", id)
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+n.daemon.path)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("%s %v: %v\n%s", id, args, err, &out)
	}
	return out.Bytes()
}

// `start` gives the containers of a pod or group one server, and `delete` of one of them leaves that to the others.
func TestStartInPod(t *testing.T) {
	for name, kind := range map[string][2]labels{"pod": {asSandbox("c1"), asMember("c1")}, "group": {asGrouped("g"), asGrouped("g")}} {
		t.Run(name, func(t *testing.T) {
			n := install(t)
			n.world.t, n.t = t, t
			n.bundle = filepath.Join(n.dir, "bundles", "c1")
			addresses := map[string]string{}
			for i, id := range []string{"c1", "c2"} {
				n.configOf(filepath.Join(n.dir, "bundles", id), kind[i], "sleep")
				addresses[id] = string(n.podShim(id, "start"))
				data, err := os.ReadFile(filepath.Join(n.dir, "bundles", id, addressFile))
				if err != nil || string(data) != addresses[id] {
					t.Errorf("address file of %s: %q, %v", id, data, err)
				}
				if i == 0 {
					n.connect(addresses[id])
				}
				n.run(id, kind[i], "sleep")
			}
			if addresses["c1"] != addresses["c2"] {
				t.Fatalf("addresses %v, want one", addresses)
			}
			if _, err := os.Stat(filepath.Join(n.dir, "bundles", "c2", pidFile)); err == nil {
				t.Error("the second container has a server of its own")
			}
			var r task.DeleteResponse
			must(t, proto.Unmarshal(n.podShim("c2", "delete"), &r))
			n.wantExit("c2", 137)
			n.remove("c2")
			if s, err := n.State(t.Context(), &task.StateRequest{ID: "c1"}); err != nil || s.Status.String() != "RUNNING" {
				t.Errorf("the first container: %v, %v", s, err)
			}
			must(t, unix.Kill(n.serverPid(), unix.SIGKILL))
			must(t, proto.Unmarshal(n.podShim("c1", "delete"), &r))
			if r.ExitStatus != 137 {
				t.Errorf("%v", &r)
			}
			n.wantNothing(addresses["c1"])
		})
	}
}

// Many containers come and go in one pod at once, by their own end, a signal, or the death of what stands for them. Each has
// its exit, and the pod goes on.
func TestPodBusy(t *testing.T) {
	w := newWorld(t)
	w.run("pod", asSandbox("pod"), "/pause")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for round := range 9 {
				id := fmt.Sprintf("c%d", n)
				args, want := []string{"sleep"}, uint32(137)
				if round%3 == 0 {
					args, want = []string{"exit", "6"}, 6
				}
				if err := w.live(id, args, want, round%3 == 1); err != nil {
					t.Errorf("%s, round %d: %v", id, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
	w.wantState("pod")
}

// live is one life of a container, without what only a test's own goroutine may do.
func (w *world) live(id string, args []string, want uint32, standIn bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	bundle := filepath.Join(w.dir, "bundles", id)
	w.configOf(bundle, asMember("pod"), args...)
	resp, err := w.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: bundle})
	if err != nil {
		return err
	}
	if _, err := w.Start(ctx, &task.StartRequest{ID: id}); err != nil {
		return err
	}
	switch {
	case args[0] == "exit":
	case standIn:
		err = unix.Kill(int(resp.Pid), unix.SIGKILL)
	default:
		_, err = w.Kill(ctx, &task.KillRequest{ID: id, Signal: 9})
	}
	if err != nil {
		return err
	}
	exit, err := w.Wait(ctx, &task.WaitRequest{ID: id})
	if err == nil && exit.ExitStatus != want {
		err = fmt.Errorf("exit status %d, want %d", exit.ExitStatus, want)
	}
	if err != nil {
		return err
	}
	_, err = w.Delete(ctx, &task.DeleteRequest{ID: id})
	return err
}
