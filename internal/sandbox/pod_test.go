package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/p9server"
)

// fakeFiles is a file server that keeps a list.
type fakeFiles struct {
	mu      sync.Mutex
	exports map[string]p9server.Export
	refuse  string // a path
}

func (f *fakeFiles) AddExport(e p9server.Export) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, taken := f.exports[e.Name]; taken || e.Root == f.refuse {
		return p9server.ErrExportExists
	}
	f.exports[e.Name] = e
	return nil
}

func (f *fakeFiles) RemoveExport(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.exports[name]; !ok {
		return p9server.ErrNoExport
	}
	delete(f.exports, name)
	return nil
}

func (f *fakeFiles) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.exports))
}

// podRig is a pod whose sandbox has been started.
type podRig struct {
	*rig
	files   *fakeFiles
	mu      sync.Mutex
	deleted []string
	signals []wire.Signal
	refuse  *wire.Error // of CreateContainer
}

func newPodRig(t *testing.T) *podRig {
	t.Helper()
	p := &podRig{files: &fakeFiles{exports: map[string]p9server.Export{}}}
	spec := oci.Example()
	spec.Hostname = "pod"
	plan, err := oci.SplitSandbox(spec)
	if err != nil {
		t.Fatal(err)
	}
	p.rig = newRigOf(t, plan, map[string]func([]byte) (any, *wire.Error){
		wire.MethodDeleteContainer: func(params []byte) (any, *wire.Error) {
			var d wire.DeleteContainer
			if err := wire.Unmarshal(params, &d); err != nil {
				t.Error(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.deleted = append(p.deleted, d.ID)
			return struct{}{}, nil
		},
		wire.MethodSignal: func(params []byte) (any, *wire.Error) {
			var s wire.Signal
			if err := wire.Unmarshal(params, &s); err != nil {
				t.Error(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.signals = append(p.signals, s)
			return struct{}{}, nil
		},
		wire.MethodCreateContainer: func([]byte) (any, *wire.Error) { return wire.Created{Pid: 7}, p.refuse },
	})
	p.c.vm, p.c.exports.files = p.vm, p.files
	mustControl(t, p.rig, control.MethodStart, nil)
	return p
}

func (p *podRig) wasDeleted(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.deleted, id)
}

// join adds a container whose root is dir. cancel ends its connection; out is what it prints.
func (p *podRig) join(t *testing.T, id, dir string, change func(*oci.Plan)) (cancel func(), out *os.File, err error) {
	t.Helper()
	spec := oci.Example()
	spec.Process.Terminal = false
	spec.Root.Path = dir
	spec.Root.Readonly = false
	plan, err := oci.Split(spec, "/")
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(plan)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	out, stdout := pipe(t)
	_, err = p.c.Control(ctx, control.MethodJoin, asJSON(control.Join{
		ID: id, Plan: asJSON(plan), Null: [3]bool{true, false, true}, Pid: 4711,
	}), []*os.File{stdout})
	_ = stdout.Close() // as the server does
	return cancel, out, err
}

func (p *podRig) ask(t *testing.T, id, method string, params, result any) error {
	t.Helper()
	got, err := p.c.Control(t.Context(), control.MethodMember, asJSON(control.Member{ID: id, Method: method, Params: asJSON(params)}), nil)
	if err == nil && result != nil {
		if e := json.Unmarshal(asJSON(got), result); e != nil {
			t.Error(e)
		}
	}
	return err
}

// A member's life: exports come and go with it, its output is out before its exit, and the pod goes on.
func TestMember(t *testing.T) {
	p := newPodRig(t)
	_, out, err := p.join(t, "c2", t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.files.names(); !slices.Equal(got, []string{"rootfs.1"}) {
		t.Errorf("exports %v", got)
	}
	var status control.Status
	if err := p.ask(t, "c2", control.MethodStatus, nil, &status); err != nil || status.State != control.StateCreated {
		t.Errorf("%+v, %v", status, err)
	}
	if err := p.ask(t, "c2", control.MethodStart, nil, nil); err != nil {
		t.Fatal(err)
	}
	var pids control.Pids
	if err := p.ask(t, "c2", control.MethodPids, nil, &pids); err != nil || !slices.Equal(pids.Pids, []int{4711}) {
		t.Errorf("%+v, %v", pids, err)
	}
	if err := p.ask(t, "c2", control.MethodKill, control.KillParams{Signal: int(unix.SIGTERM)}, nil); err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	if want := (wire.Signal{ID: "c2", Signal: int(unix.SIGTERM)}); len(p.signals) != 1 || p.signals[0] != want {
		t.Errorf("signals %v", p.signals)
	}
	p.mu.Unlock()
	if _, err := p.agent.out[0].Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	p.agent.exited("c2", 5, 3, 0)
	var exit control.Exit
	if err := p.ask(t, "c2", control.MethodWait, nil, &exit); err != nil || exit.Code != 5 {
		t.Errorf("%+v, %v", exit, err)
	}
	if !p.wasDeleted("c2") || len(p.files.names()) != 0 {
		t.Errorf("deleted %v, exports %v", p.deleted, p.files.names())
	}
	if got, err := io.ReadAll(out); err != nil || string(got) != "bye" {
		t.Errorf("output %q, %v", got, err)
	}
	if s := p.c.status().State; s != control.StateRunning {
		t.Errorf("the pod is %s", s)
	}
}

// The connection is the stand-in's life. Its ID is free afterwards.
func TestMemberStandInKilled(t *testing.T) {
	p := newPodRig(t)
	cancel, _, err := p.join(t, "c2", t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.join(t, "c2", t.TempDir(), nil); kindOf(err) != control.KindBadRequest {
		t.Errorf("the same ID: %v", err)
	}
	cancel()
	eventually(t, func() bool { return p.c.member("c2") == nil })
	if !p.wasDeleted("c2") || len(p.files.names()) != 0 {
		t.Errorf("deleted %v, exports %v", p.deleted, p.files.names())
	}
	if err := p.ask(t, "c2", control.MethodStatus, nil, nil); kindOf(err) != control.KindNotRunning {
		t.Errorf("%v", err)
	}
	if _, _, err := p.join(t, "c2", t.TempDir(), nil); err != nil {
		t.Errorf("the ID is not free: %v", err)
	}
}

func TestJoinFails(t *testing.T) {
	p := newPodRig(t)
	bad := t.TempDir()
	p.files.refuse = bad
	if _, _, err := p.join(t, "c2", t.TempDir(), func(plan *oci.Plan) {
		plan.Host.Binds = []oci.Bind{{Export: oci.Export{Name: "a", Path: t.TempDir()}}, {Export: oci.Export{Name: "b", Path: bad}}}
	}); err == nil {
		t.Error("an export failed, and the container came to be")
	}
	p.refuse = &wire.Error{Kind: wire.KindFailed, Message: "no such program"}
	_, _, err := p.join(t, "c2", t.TempDir(), nil)
	if kindOf(err) != control.KindGuest || err.Error() != "no such program" {
		t.Errorf("%v", err)
	}
	if got := p.files.names(); len(got) != 0 || p.c.member("c2") != nil {
		t.Errorf("left: exports %v, member %v", got, p.c.member("c2"))
	}
	if _, _, err := p.join(t, "c1", t.TempDir(), nil); kindOf(err) != control.KindBadRequest {
		t.Errorf("the sandbox's own ID: %v", err)
	}
	alone := newRig(t, nil)
	if _, err := alone.c.Control(t.Context(), control.MethodJoin, asJSON(control.Join{ID: "c2", Plan: asJSON(alone.c.plan)}), nil); kindOf(err) != control.KindBadRequest {
		t.Errorf("a container that is no pod: %v", err)
	}
	for _, method := range []string{control.MethodJoin, control.MethodMember} {
		if err := p.ask(t, "c2", method, nil, nil); kindOf(err) != control.KindNotRunning {
			t.Errorf("%s within member: %v", method, err)
		}
	}
}

// Kubernetes' pause ends at these signals and no others, and so does what is there in its place.
func TestPlaceholder(t *testing.T) {
	for sig, want := range map[unix.Signal]int{unix.SIGTERM: 0, unix.SIGINT: 0, unix.SIGKILL: 137} {
		p := newPodRig(t)
		for _, s := range []unix.Signal{0, unix.SIGHUP, unix.SIGUSR1, unix.SIGCHLD} {
			if err := p.c.kill(s); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.c.Control(t.Context(), control.MethodExec, asJSON(control.Exec{Process: asJSON(map[string]any{})}), nil); kindOf(err) != control.KindBadRequest {
			t.Errorf("exec: %v", err)
		}
		if p.c.isOver() {
			t.Fatal("it has ended")
		}
		if sig == unix.SIGKILL {
			mustControl(t, p.rig, control.MethodPause, nil)
		}
		if err := p.c.kill(sig); err != nil {
			t.Error(err)
		}
		if p.vm.isPaused() {
			t.Error("a paused guest cannot write its files back")
		}
		if code := p.exit(t); code != want {
			t.Errorf("exit status %d after %v, want %d", code, sig, want)
		}
		if !p.agent.called(wire.MethodShutdown) || !p.vm.stopped() {
			t.Error("files were not written back, or the VM goes on")
		}
		if p.agent.called(wire.MethodCreateContainer) || p.agent.called(wire.MethodSignal) {
			t.Error("the guest has heard of a container that it has not")
		}
	}
}

// A guest that does not end a member loses its VM, and the pod with it.
func TestMemberThatWillNotEnd(t *testing.T) {
	p := newPodRig(t)
	p.c.patience = 20 * time.Millisecond
	if _, _, err := p.join(t, "c2", t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.ask(t, "c2", control.MethodKill, control.KillParams{Signal: int(unix.SIGKILL)}, nil); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(t); code != 137 || !p.vm.stopped() {
		t.Errorf("exit status %d", code)
	}
}

// SIGKILL for a member of a paused pod waits, and the others stay paused.
func TestMemberPaused(t *testing.T) {
	p := newPodRig(t)
	if _, _, err := p.join(t, "c2", t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	mustControl(t, p.rig, control.MethodPause, nil)
	var status control.Status
	if err := p.ask(t, "c2", control.MethodStatus, nil, &status); err != nil || status.State != control.StatePaused {
		t.Errorf("%+v, %v", status, err)
	}
	if err := p.ask(t, "c2", control.MethodStats, nil, nil); kindOf(err) != control.KindPaused {
		t.Errorf("stats: %v", err)
	}
	if _, _, err := p.join(t, "c3", t.TempDir(), nil); kindOf(err) != control.KindPaused {
		t.Errorf("join: %v", err)
	}
	if err := p.ask(t, "c2", control.MethodKill, control.KillParams{Signal: int(unix.SIGKILL)}, nil); err != nil {
		t.Fatal(err)
	}
	if !p.vm.isPaused() {
		t.Error("the VM goes on")
	}
	mustControl(t, p.rig, control.MethodResume, nil)
	eventually(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.signals) == 1 })
}

func TestExports(t *testing.T) {
	files := &fakeFiles{exports: map[string]p9server.Export{}}
	x := &exports{files: files, vm: &oci.VM{}}
	plan := func(root string, binds ...oci.Export) *oci.Plan {
		p := &oci.Plan{Host: oci.Host{Rootfs: oci.Export{Name: "rootfs", Path: root}}}
		for _, b := range binds {
			p.Host.Binds = append(p.Host.Binds, oci.Bind{Export: b})
		}
		return p
	}
	one := plan("/one", oci.Export{Name: "vol", Path: "/vol"}, oci.Export{Name: "ro", Path: "/ro", ReadOnly: true})
	two := plan("/two", oci.Export{Name: "v", Path: "/vol", ReadOnly: true}, oci.Export{Name: "ro", Path: "/ro"}, oci.Export{Name: "vol", Path: "/b/vol"})
	for _, p := range []*oci.Plan{one, two} {
		if err := x.add(p); err != nil {
			t.Fatal(err)
		}
	}
	names := func(p *oci.Plan) (all []string) {
		for _, e := range planExports(p) {
			all = append(all, e.Name)
		}
		return all
	}
	if got := names(one); !slices.Equal(got, []string{"rootfs.1", "vol.2", "ro.3"}) {
		t.Errorf("first %v", got)
	}
	// What the guest may write anyway is shared; what it may only read is not made writable.
	if got := names(two); !slices.Equal(got, []string{"rootfs.4", "vol.2", "ro.5", "vol.6"}) {
		t.Errorf("second %v", got)
	}
	if !files.exports["ro.3"].ReadOnly || files.exports["ro.5"].ReadOnly || files.exports["vol.2"].ReadOnly {
		t.Errorf("%+v", files.exports)
	}
	x.remove(one)
	if got := files.names(); !slices.Equal(got, []string{"ro.5", "rootfs.4", "vol.2", "vol.6"}) {
		t.Errorf("after the first has gone: %v", got)
	}
	one = plan("/one")
	if err := x.add(one); err != nil || one.Host.Rootfs.Name != "rootfs.7" {
		t.Errorf("%s, %v: names are not used twice", one.Host.Rootfs.Name, err)
	}
	x.remove(one)
	x.remove(two)
	if got := files.names(); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	if err := x.release("vol.2"); !errors.Is(err, errNotUsed) {
		t.Error(err)
	}
}

// One member of a pod is paused by the guest; the VM goes on.
func TestMemberFrozen(t *testing.T) {
	p := newPodRig(t)
	var frozen []bool
	p.agent.handle[wire.MethodFreeze] = func(params []byte) (any, *wire.Error) {
		var f wire.Freeze
		if err := wire.Unmarshal(params, &f); err != nil || f.ID != "c2" {
			t.Errorf("%+v, %v", f, err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		frozen = append(frozen, f.Frozen)
		return struct{}{}, nil
	}
	if _, _, err := p.join(t, "c2", t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		method string
		kind   control.Kind
		state  control.State
	}{
		{control.MethodStart, "", control.StateRunning},
		{control.MethodResume, control.KindPaused, control.StateRunning},
		{control.MethodPause, "", control.StatePaused},
		{control.MethodPause, control.KindPaused, control.StatePaused},
		{control.MethodStats, control.KindPaused, control.StatePaused},
		{control.MethodExec, control.KindPaused, control.StatePaused},
		{control.MethodResume, "", control.StateRunning},
	} {
		if err := p.ask(t, "c2", step.method, map[string]any{}, nil); kindOf(err) != step.kind {
			t.Errorf("%s: %v, want %q", step.method, err, step.kind)
		}
		var status control.Status
		if err := p.ask(t, "c2", control.MethodStatus, nil, &status); err != nil || status.State != step.state {
			t.Errorf("after %s: %+v, %v", step.method, status, err)
		}
	}
	if p.vm.isPaused() || p.c.status().State != control.StateRunning || !slices.Equal(frozen, []bool{true, false}) {
		t.Errorf("the VM is paused: %t; frozen %v", p.vm.isPaused(), frozen)
	}
	// The signal goes to a frozen one at once.
	if err := p.ask(t, "c2", control.MethodPause, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.ask(t, "c2", control.MethodKill, control.KillParams{Signal: int(unix.SIGKILL)}, nil); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.signals) != 1 {
		t.Errorf("signals %v", p.signals)
	}
}
