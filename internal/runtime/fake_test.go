package runtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/wire"
)

// The fake sandbox process is this test binary. It keeps to the protocol of
// package control and has no VM. Plan.VM.KernelParams tells it how to behave:
const (
	fakeName       = "fake-sandbox"
	fakeDie        = "die"         // exit before the configuration is read
	fakeFail       = "fail"        // report an error instead of ready
	fakeSlow       = "slow"        // never get ready
	fakeStuck      = "stuck"       // never read the configuration, never notice anything
	fakeExit       = "exit"        // exit with 7 as soon as it is started
	fakeIgnoreTerm = "ignore-term" // signals but SIGKILL do nothing
	fakeDrain      = "drain"       // stay for a while after the container has stopped
	fakeEcho       = "echo"        // write to stdout when started
	fakeNoSave     = "no-save"     // cannot make a template
	fakeFixed      = "fixed"       // makes templates that serve one size only
	fakeNoRestore  = "no-restore"  // cannot begin from one
	fakeSlowSave   = "slow-save"   // never has made one
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakeName {
		os.Exit(fakeMain())
	}
	if len(os.Args) > 1 && os.Args[1] == fakeStandIn {
		os.Exit(runtime.StandInMain())
	}
	if len(os.Args) > 1 && os.Args[1] == creatorName {
		os.Exit(creatorMain())
	}
	os.Exit(m.Run())
}

type fake struct {
	behave []string
	mu     sync.Mutex
	state  control.State
	exit   *control.Exit
	gone   chan struct{}
	execs  map[string]*fakeExec
}

func (f *fake) is(b string) bool { return slices.Contains(f.behave, b) }

func fakeMain() int {
	if os.Getenv("FAKE_STUCK") != "" {
		select {}
	}
	if os.Getenv("FAKE_DIE") != "" {
		return 3
	}
	child, err := control.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	child.Orphaned(func() { os.Exit(1) })
	var plan oci.Plan
	if err := wire.Unmarshal(child.Launch.Packed, &plan); err != nil {
		return 1
	}
	f := &fake{behave: plan.VM.KernelParams, state: control.StateCreated, gone: make(chan struct{})}
	noteStart(child.Launch)
	if dir := child.Launch.MakeTemplate; dir != "" {
		return f.save(dir)
	}
	if f.is(fakeNoRestore) && child.Launch.Template != "" {
		if _, err := control.Listen(child.StateDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		_ = child.Ready(control.Ready{Error: &control.Error{Kind: control.KindTemplate, Message: "state: of another CPU"}})
		return 1
	}
	if f.is(fakeSlow) {
		select {}
	}
	if f.is(fakeFail) {
		_ = child.Ready(control.Ready{Error: &control.Error{Kind: control.KindGuest, Message: "no such program"}})
		return 1
	}
	l, err := control.Listen(child.StateDir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	s := control.Serve(l, f, slog.New(slog.DiscardHandler))
	if err := child.Ready(control.Ready{}); err != nil {
		return 1
	}
	<-f.gone
	if f.is(fakeDrain) {
		time.Sleep(300 * time.Millisecond)
	}
	_ = s // an exiting sandbox does not wait for its callers
	return f.exit.Code
}

func (f *fake) end(code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.exit == nil {
		f.state, f.exit = control.StateStopped, &control.Exit{Code: code, At: time.Now()}
		time.AfterFunc(5*time.Millisecond, func() { close(f.gone) }) // after the answer is sent
	}
}

func (f *fake) Control(ctx context.Context, method string, params json.RawMessage, files []*os.File) (any, error) {
	f.mu.Lock()
	state := f.state
	f.mu.Unlock()
	switch method {
	case control.MethodStatus:
		return control.Status{State: state}, nil
	case control.MethodStart:
		f.mu.Lock()
		defer f.mu.Unlock()
		switch f.state {
		case control.StateRunning:
			return nil, &control.Error{Kind: control.KindRunning}
		case control.StatePaused:
			return nil, &control.Error{Kind: control.KindPaused}
		case control.StateStopped:
			return nil, &control.Error{Kind: control.KindNotRunning}
		}
		f.state = control.StateRunning
		if f.is(fakeEcho) {
			fmt.Println("hello")
		}
		if f.is(fakeExit) {
			go f.end(7)
		}
		return nil, nil
	case control.MethodKill:
		var p control.KillParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		if state == control.StateStopped {
			return nil, &control.Error{Kind: control.KindNotRunning}
		}
		if p.ExecID != "" {
			return nil, f.killExec(p)
		}
		if p.Signal == int(unix.SIGKILL) || (p.Signal != 0 && !f.is(fakeIgnoreTerm)) {
			f.end(128 + p.Signal)
		}
		return nil, nil
	default:
		return f.more(ctx, method, params, files)
	}
}

// world is a root directory and a bundle.
type world struct {
	t      *testing.T
	rt     *runtime.Runtime
	root   string
	bundle string
	env    []string
}

func newWorld(t *testing.T, env ...string) *world {
	t.Helper()
	w := &world{t: t, root: filepath.Join(t.TempDir(), "root"), bundle: t.TempDir(), env: env}
	if err := os.Mkdir(filepath.Join(w.bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.rt = newRuntime(t, w.root, env)
	return w
}

func newRuntime(t testing.TB, root string, env []string) *runtime.Runtime {
	rt, err := runtime.New(runtime.Config{
		Root: root, Sandbox: []string{"/proc/self/exe", fakeName}, SandboxEnv: env, Templates: filepath.Join(root, "../templates"),
		StandIn: []string{"/proc/self/exe", fakeStandIn},
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func config(id, bundle string, behave ...string) (runtime.CreateConfig, error) {
	spec := oci.Example()
	spec.Process.Terminal = false
	score := 123
	spec.Process.OOMScoreAdj = &score
	spec.Annotations = map[string]string{"a": "b"}
	spec.VM = &specs.VM{Kernel: specs.VMKernel{Parameters: behave}}
	plan, err := oci.Split(spec, bundle)
	return runtime.CreateConfig{ID: id, Bundle: bundle, Spec: spec, Plan: plan}, err
}

func (w *world) create(id string, behave ...string) (*runtime.Container, error) {
	w.t.Helper()
	cfg, err := config(id, w.bundle, behave...)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.rt.Create(context.Background(), cfg)
	if err == nil {
		w.t.Cleanup(func() {
			if err := w.rt.Delete(id, true); err != nil {
				w.t.Error(err)
			}
		})
	}
	return c, err
}

func (w *world) mustCreate(id string, behave ...string) *runtime.Container {
	w.t.Helper()
	c, err := w.create(id, behave...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) wantStatus(id string, want runtime.Status) {
	w.t.Helper()
	c, err := w.rt.Load(id)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := c.State()
	if err != nil {
		w.t.Fatal(err)
	}
	if s.Status != want {
		w.t.Fatalf("status %q, want %q", s.Status, want)
	}
	if (s.Pid == 0) != (want == runtime.Stopped) {
		w.t.Errorf("pid %d in status %q", s.Pid, want)
	}
}

// wantNothing fails if a state directory or a fake process of it is left.
func (w *world) wantNothing(id string) {
	w.t.Helper()
	if _, err := os.Stat(filepath.Join(w.root, id)); !os.IsNotExist(err) {
		w.t.Errorf("state directory: %v, want it gone", err)
	}
	if pids := fakes(w.t, w.root, id); len(pids) > 0 {
		w.t.Errorf("processes are left: %v", pids)
	}
}

// fakes lists the fake processes of an ID under a root that are not zombies.
func fakes(t *testing.T, root, id string) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, d := range dirs {
		data, err := os.ReadFile(d + "/cmdline")
		if err != nil || string(data) != "lucid\x00"+fakeName+"\x00"+id+"\x00" {
			continue
		}
		// Another run of these tests has the same IDs.
		if dir, err := os.Readlink(d + "/fd/" + strconv.Itoa(control.StateDirFD)); err != nil || !strings.HasPrefix(dir, root+"/") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(d), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// creatorName makes this binary create a container as the command line does,
// in a process of its own that a test can kill.
const creatorName = "fake-creator"

// creatorMain takes root, bundle, ID and the behaviours as arguments. It
// says "created" on stdout and waits for the end of stdin.
func creatorMain() int {
	root, bundle, id, behave := os.Args[2], os.Args[3], os.Args[4], os.Args[5:]
	rt, err := runtime.New(runtime.Config{Root: root, Sandbox: []string{"/proc/self/exe", fakeName}, SandboxEnv: os.Environ()})
	if err == nil {
		var cfg runtime.CreateConfig
		if cfg, err = config(id, bundle, behave...); err == nil {
			_, err = rt.Create(context.Background(), cfg)
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("created")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}
