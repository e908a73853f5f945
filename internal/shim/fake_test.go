package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/wire"
)

// This test binary is also the programs that the shim runs.
const (
	fakeSandbox = runtime.SandboxCommand
	fakeStandIn = runtime.StandInCommand
	fakeLogger  = "fake-logger"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == shimProgram {
		os.Exit(Main("test"))
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case fakeSandbox:
			os.Exit(sandboxMain())
		case fakeStandIn:
			os.Exit(runtime.StandInMain())
		case "features":
			fmt.Println(`{"mountOptions":["rro"]}`)
			os.Exit(0)
		case fakeLogger:
			os.Exit(loggerMain())
		}
	}
	os.Exit(m.Run())
}

// deafHost is the hostname of a machine that fails with SIGTERM.
const deafHost = "deaf"

// machine is a sandbox process without a VM: it keeps to the protocol of package control, and "runs" these programs:
//
//	exit N        exits with N, at once
//	print N TEXT  writes TEXT N times to stdout, once to stderr, and exits
//	cat           copies stdin to stdout, and exits with 0 at its end
//	sleep         until a signal
//	eat N         has N processes killed by the OOM killer, one after another, and is the last
type machine struct {
	over chan struct{} // the process has ended
	gone chan struct{} // and its output is out
	deaf bool          // fails with SIGTERM

	mu    sync.Mutex
	state control.State
	code  int
	args  []string
	stdio [3]*os.File
	execs map[string]*fakeExec
	kills atomic.Uint64 // by the OOM killer

	members map[string]*machine // containers of the pod
}

type fakeExec struct {
	ended chan struct{}
	once  sync.Once
	code  int
}

func (e *fakeExec) end(code int) {
	e.once.Do(func() { e.code = code; close(e.ended) })
}

func sandboxMain() int {
	child, err := control.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if child.Launch.Pod != "" {
		return runtime.MemberMain(child)
	}
	child.Orphaned(func() { os.Exit(1) })
	var plan oci.Plan
	if err := json.Unmarshal(child.Launch.Plan, &plan); err != nil {
		return 1
	}
	args := []string{"sleep"}
	if !plan.Placeholder {
		args = plan.Guest.Process.Args
	}
	if args[0] == "nosuch" {
		_ = child.Ready(control.Ready{Error: &control.Error{Kind: control.KindGuest, Message: "exec nosuch: executable file not found in $PATH"}})
		return 1
	}
	l, err := control.Listen(child.StateDir)
	if err != nil {
		return 1
	}
	m := newMachine(args)
	m.stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	m.deaf = plan.Guest.Hostname == deafHost
	server := control.Serve(l, m, slog.New(slog.DiscardHandler))
	if err := child.Ready(control.Ready{}); err != nil {
		return 1
	}
	<-m.gone
	server.Drain(100 * time.Millisecond)
	return m.code
}

func newMachine(args []string) *machine {
	return &machine{
		state: control.StateCreated, args: args, over: make(chan struct{}), gone: make(chan struct{}),
		execs: map[string]*fakeExec{}, members: map[string]*machine{},
	}
}

// join makes a container of the pod, which ends with its connection.
func (m *machine) join(ctx context.Context, params json.RawMessage, files []*os.File) (err error) {
	var p control.Join
	var plan oci.Plan
	if err := json.Unmarshal(params, &p); err != nil {
		return err
	}
	if err := json.Unmarshal(p.Plan, &plan); err != nil {
		return err
	}
	if plan.Guest.Process.Args[0] == "nosuch" {
		return &control.Error{Kind: control.KindGuest, Message: "exec nosuch: executable file not found in $PATH"}
	}
	c := newMachine(plan.Guest.Process.Args)
	if c.stdio, err = passed(p.Null, files); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members[p.ID] = c
	context.AfterFunc(ctx, func() { c.end(137) })
	go func() {
		<-c.gone
		for _, f := range c.stdio {
			_ = f.Close()
		}
	}()
	return nil
}

func (m *machine) member(ctx context.Context, params json.RawMessage, files []*os.File) (any, error) {
	var p control.Member
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, err
	}
	m.mu.Lock()
	c := m.members[p.ID]
	m.mu.Unlock()
	if c == nil {
		return nil, &control.Error{Kind: control.KindNotRunning, Message: "container not running"}
	}
	return c.Control(ctx, p.Method, p.Params, files)
}

func (m *machine) end(code int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == control.StateStopped {
		return
	}
	m.state, m.code = control.StateStopped, code
	close(m.gone)
}

// runProgram "runs" a program to its end.
func runProgram(args []string, in io.Reader, out, errs io.Writer, over func()) int {
	var n int
	switch args[0] {
	case "exit":
		_, _ = fmt.Sscan(args[1], &n)
		over()
		return n
	case "print":
		_, _ = fmt.Sscan(args[1], &n)
		over()
		for range n {
			_, _ = io.WriteString(out, args[2])
		}
		_, _ = io.WriteString(errs, args[2])
	case "cat":
		_, _ = io.Copy(out, in)
		over()
	default:
		select {}
	}
	return 0
}

func (m *machine) Control(ctx context.Context, method string, params json.RawMessage, files []*os.File) (any, error) {
	m.mu.Lock()
	state := m.state
	m.mu.Unlock()
	switch method {
	case control.MethodStatus:
		return control.Status{State: state}, nil
	case control.MethodStart:
		if state == control.StateRunning {
			return nil, &control.Error{Kind: control.KindRunning}
		}
		m.setState(control.StateRunning)
		go func() {
			if m.args[0] == "eat" {
				m.eat()
				return
			}
			m.end(runProgram(m.args, m.stdio[0], m.stdio[1], m.stdio[2], func() { close(m.over) }))
		}()
	case control.MethodEnded:
		select {
		case <-m.over:
		case <-m.gone:
		case <-ctx.Done():
		}
	case control.MethodOOM:
		return m.awaitKill(ctx, params)
	case control.MethodJoin:
		return nil, m.join(ctx, params, files)
	case control.MethodMember:
		return m.member(ctx, params, files)
	case control.MethodWait:
		select {
		case <-m.gone:
		case <-ctx.Done():
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return control.Exit{Code: m.code}, nil
	case control.MethodPause:
		m.setState(control.StatePaused)
	case control.MethodResume:
		m.setState(control.StateRunning)
	case control.MethodStats:
		return &wire.StatsResult{MemoryCurrent: 7 << 20, CPUUsageUS: 12, PidsCurrent: 3}, nil
	case control.MethodUpdate:
		var r specs.LinuxResources
		if err := json.Unmarshal(params, &r); err != nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit != 77 {
			return nil, &control.Error{Kind: control.KindGuest, Message: "unexpected limits: " + string(params)}
		}
	case control.MethodKill:
		var p control.KillParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		if m.deaf && p.Signal == int(unix.SIGTERM) {
			return nil, &control.Error{Kind: control.KindGuest, Message: "no answer"}
		}
		if p.ExecID != "" {
			m.exec(p.ExecID).end(128 + p.Signal)
		} else {
			go m.end(128 + p.Signal)
		}
	case control.MethodExec:
		return m.startExec(params, files)
	case control.MethodExecWait:
		var p control.ExecStarted
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		e := m.exec(p.ExecID)
		<-e.ended
		return control.Exit{Code: e.code}, nil
	default:
		return nil, &control.Error{Kind: control.KindBadRequest, Message: method}
	}
	return nil, nil
}

func (m *machine) setState(s control.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
}

func (m *machine) exec(id string) *fakeExec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.execs[id]
}

func (m *machine) startExec(params json.RawMessage, files []*os.File) (any, error) {
	var p control.Exec
	var process specs.Process
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(p.Process, &process); err != nil {
		return nil, err
	}
	if process.Args[0] == "nosuch" {
		return nil, &control.Error{Kind: control.KindGuest, Message: "exec nosuch: executable file not found in $PATH"}
	}
	ends, err := passed(p.Null, files)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	id := fmt.Sprint("e", len(m.execs))
	e := &fakeExec{ended: make(chan struct{})}
	m.execs[id] = e
	m.mu.Unlock()
	go func() {
		code := runProgram(process.Args, ends[0], ends[1], ends[2], func() {})
		for _, f := range ends {
			_ = f.Close()
		}
		e.end(code)
	}()
	return control.ExecStarted{ExecID: id}, nil
}

// passed are a process's files.
func passed(null [3]bool, files []*os.File) (ends [3]*os.File, err error) {
	for i := range ends {
		if null[i] {
			ends[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
		} else {
			var fd int
			fd, err = unix.Dup(int(files[0].Fd()))
			ends[i], files = os.NewFile(uintptr(fd), "passed"), files[1:]
		}
		if err != nil {
			return ends, err
		}
	}
	return ends, nil
}

// loggerMain is a logging program: it copies fds 3 and 4 to the files that its arguments name.
func loggerMain() int {
	var wg sync.WaitGroup
	for i, path := range []string{os.Args[2], os.Args[4]} {
		out, err := os.Create(path)
		if err != nil {
			return 1
		}
		_, _ = fmt.Fprintf(out, "%s/%s:", os.Getenv("CONTAINER_NAMESPACE"), os.Getenv("CONTAINER_ID"))
		wg.Go(func() { _, _ = io.Copy(out, os.NewFile(uintptr(3+i), "in")) })
	}
	_ = os.NewFile(5, "ready").Close()
	wg.Wait()
	return 0
}

// text is a writer for logs of a test.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}
