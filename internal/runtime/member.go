package runtime

// A container of a pod. Its VM is another container's; on the host a process like
// that of a detached exec stands for it, which is started as a sandbox process is:
//
//	creator ── spawn ──▶ lucid sandbox ID      its own session; Launch.Pod is set
//	   │── configuration ──▶ │── Join, pipes ──▶ the pod's sandbox process
//	   │◀── ready, or an error│
//	   │── commit ──────────▶│  signals, stdio
//	                         ▼ exit with the status
//
// Whoever asks for the container asks the pod's control socket (dial).

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
)

// PodFor returns what a container that is to join a pod has to know of it.
func (r *Runtime) PodFor(id string) (*oci.Pod, error) {
	pod, err := r.Load(id)
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", id, err)
	}
	if pod.rec.Shares == nil {
		return nil, fmt.Errorf("container %s is no sandbox of a pod", id)
	}
	if status, err := pod.Status(); err != nil || status == Stopped || status == Creating {
		return nil, fmt.Errorf("pod %s: %w", id, errors.Join(err, ErrNotRunning))
	}
	all, err := r.List(func(other string, err error) { r.log.Debug("container", "id", other, "err", err) })
	if err != nil {
		return nil, err
	}
	known := *pod.rec.Shares
	known.Members = map[int]string{pod.rec.Pid: ""}
	for _, c := range all {
		if c.rec.Pod == id && c.rec.Committed {
			known.Members[c.rec.Pid] = c.id
		}
	}
	return &known, nil
}

// Pod returns the ID of the container whose VM this one is in; empty if it has its
// own.
func (c *Container) Pod() string { return c.rec.Pod }

// leaveTimeout is for a pod to end a container by itself.
const leaveTimeout = 15 * time.Second

// leave ends a container of a pod in good order: its files are written back, and
// the pod has nothing of it open any more. What fails is left to end.
func (c *Container) leave() {
	if !alive(c.dir) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	kill := control.KillParams{Signal: int(unix.SIGKILL)}
	for _, step := range []struct {
		method string
		params any
	}{
		{control.MethodKill, kill},
		{control.MethodEnded, nil},
		{control.MethodKill, kill}, // gives up what of the output nobody has read
		{control.MethodWait, nil},
	} {
		if err := c.call(ctx, step.method, step.params, nil); err != nil {
			c.log.Debug("leave the pod", "id", c.id, "err", err)
		}
	}
}

// MemberMain is the process that stands for a container of a pod. It returns its exit
// status.
func MemberMain(child *control.Child) int {
	signals := CatchSignals()
	child.Orphaned(func() { os.Exit(ExecFailed) })
	e, err := joinPod(child)
	if err != nil {
		var ce *control.Error
		if !errors.As(err, &ce) {
			ce = &control.Error{Kind: control.KindInternal, Message: err.Error()}
		}
		_ = child.Ready(control.Ready{Error: ce}) // the creator is gone if that fails
		return ExecFailed
	}
	if err := child.Ready(control.Ready{}); err != nil {
		return ExecFailed
	}
	go e.RoutineSignals(signals, nil)
	return e.waitMember()
}

// joinPod creates the container in the pod's VM. Its end is that of this process.
func joinPod(child *control.Child) (*Exec, error) {
	launch := &child.Launch
	ctx := context.Background() // the creator gives up for us: then we are orphaned
	stdio := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	p, err := newPipes(stdio, launch.Terminal)
	if err != nil {
		return nil, err
	}
	defer p.closeTheirs()
	conn, err := control.Dial(ctx, launch.Pod)
	if err != nil {
		p.closeOurs()
		return nil, err
	}
	join := control.Join{ID: launch.ID, Plan: launch.Plan, Null: p.null, Pid: os.Getpid()}
	if err := conn.CallFiles(ctx, control.MethodJoin, join, nil, p.theirs...); err != nil {
		p.closeOurs()
		return nil, err
	}
	e := &Exec{
		c: &Container{
			dir: filepath.Join(filepath.Dir(launch.Pod), launch.ID), id: launch.ID, rec: record{Pod: filepath.Base(launch.Pod)},
		},
		conn: &connection{Conn: conn, member: launch.ID},
	}
	e.copy(stdio, p.ours)
	if launch.Terminal {
		if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
			_ = e.Resize(ws.Col, ws.Row) // it has a size all the same
		}
	}
	return e, nil
}

// waitMember is Exec.Wait for a container.
func (e *Exec) waitMember() int {
	var exit control.Exit
	err := e.conn.call(context.Background(), control.MethodWait, nil, &exit)
	if err != nil {
		exit.Code = 128 + int(unix.SIGKILL) // with the pod's sandbox process
	}
	e.finish(err == nil)
	return exit.Code
}
