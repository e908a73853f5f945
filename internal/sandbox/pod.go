package sandbox

// A pod: one VM, in which the container that this process was made for has no
// process of its own (oci.Plan.Placeholder), and others join:
//
//	their stand-ins on the host ── Join, pipes ──▶ join ── CreateContainer ──▶ agent
//	                            ── Member{kill…} ▶ as for the first one
//	                            ◀─ exit ────────── routineMember ── DeleteContainer ──▶ agent
//
// docs/flows/pods.md. A member lives no longer than its stand-in's connection.

import (
	"context"
	"encoding/json"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// pod is what the containers of a VM share.
type pod struct {
	client  *wire.Client
	vm      runner        // set before the first container is created
	streams wire.Expecter // where the agent opens streams; set when the first container is created
	exports exports
	pause   pausing

	membersMu sync.Mutex
	members   map[string]*container // by ID; protected by membersMu
}

// maxMembers bounds a pod. Kubernetes' have some ten containers.
const maxMembers = 128

// noProcess answers what would need a process of the placeholder.
const noProcess = "the sandbox of a pod has no process of its own"

// member finds a container of the pod.
func (g *pod) member(id string) *container {
	g.membersMu.Lock()
	defer g.membersMu.Unlock()
	return g.members[id]
}

// enroll takes an ID for a member.
func (g *pod) enroll(m *container) error {
	g.membersMu.Lock()
	defer g.membersMu.Unlock()
	switch {
	case g.members[m.id] != nil:
		return badRequest("the pod has a container " + m.id + " already")
	case len(g.members) >= maxMembers:
		return badRequest("the pod has too many containers")
	case g.members == nil:
		g.members = make(map[string]*container)
	}
	g.members[m.id] = m
	return nil
}

func (g *pod) strike(m *container) {
	g.membersMu.Lock()
	defer g.membersMu.Unlock()
	if g.members[m.id] == m {
		delete(g.members, m.id)
	}
}

// signalPlaceholder does what Kubernetes' pause does with a signal, on which a
// pod without a process of its own ends too.
func (c *container) signalPlaceholder(sig unix.Signal) {
	status := 128 + int(sig)
	switch sig {
	case unix.SIGINT, unix.SIGTERM:
		status = 0
	case unix.SIGKILL, unix.SIGQUIT, unix.SIGABRT:
	default:
		return // as to the first process of a pid namespace
	}
	if c.vmPaused() {
		// The guest has files to write back.
		if err := c.resumeVM(); err != nil {
			c.log.Debug("resume at the end of a pod", "err", err)
		}
	}
	c.exited(&wire.ContainerExited{ID: c.id, Status: status})
}

// giveUp ends a container that the guest does not end: with its VM.
func (c *container) giveUp() {
	if c.main != nil {
		c = c.main
	}
	c.abort(128 + int(unix.SIGKILL))
}

// join creates a container in the pod. It ends when ctx, the connection, does.
func (c *container) join(ctx context.Context, p *control.Join, files []*os.File) error {
	switch {
	case !c.plan.Placeholder:
		return badRequest("container " + c.id + " is no sandbox of a pod")
	case c.isOver():
		return errStopped
	case c.isPaused():
		return errPaused
	}
	plan := new(oci.Plan)
	if err := json.Unmarshal(p.Plan, plan); err != nil {
		return badRequest("plan: " + err.Error())
	}
	m := newContainer(p.ID, plan, newTimeline(control.Now()), c.log.With("member", p.ID))
	m.pod, m.pid, m.main, m.patience = c.pod, p.Pid, c, c.patience
	if p.ID == c.id {
		return badRequest("container " + c.id + " is the pod's sandbox")
	}
	if err := c.enroll(m); err != nil {
		return err
	}
	if err := m.settleIn(ctx, p, files); err != nil {
		c.strike(m)
		return guestError(err)
	}
	go m.routineMember(ctx)
	return nil
}

// settleIn makes the container's exports and the container.
func (c *container) settleIn(ctx context.Context, p *control.Join, files []*os.File) error {
	if err := c.exports.add(c.plan); err != nil {
		return err
	}
	mountPoints(c.plan, c.log)
	streams := &stdio{terminal: c.plan.Guest.Process.Terminal}
	err := streams.adopt(p.Null, files)
	if err == nil {
		create, cancel := context.WithTimeout(ctx, createTimeout)
		defer cancel()
		if err = c.create(create, c.streams, streams); err != nil {
			streams.close()
			c.removeFromGuest() // it may be there after all
		}
	}
	if err != nil {
		c.exports.remove(c.plan)
	}
	return err
}

// isOver says whether the container's process has ended.
func (c *container) isOver() bool {
	select {
	case <-c.over:
		return true
	case <-c.stopped:
		return true
	default:
		return false
	}
}

// routineMember waits for the end of a member, of its stand-in or of the pod.
func (c *container) routineMember(ctx context.Context) {
	code := 128 + int(unix.SIGKILL)
	select {
	case x := <-c.ended:
		c.drainMember(ctx, x)
		code = status(x)
	case <-ctx.Done(): // the stand-in was killed
	case <-c.main.stopped:
	}
	// Whoever hears of the end finds the files written back, and nothing of them
	// open here.
	c.removeFromGuest()
	c.exports.remove(c.plan)
	c.finish(code)
	c.io.close()
	<-ctx.Done()
	c.strike(c)
}

// drainMember waits for the last output; not if the member is killed meanwhile.
func (c *container) drainMember(ctx context.Context, x *wire.ContainerExited) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.io.drain(ctx, x.Stdout, x.Stderr)
	}()
	select {
	case <-done:
	case <-c.aborted:
	}
}

// removeFromGuest kills what is left of a member and has its files written back.
func (c *container) removeFromGuest() {
	if c.main.isOver() {
		return // all of it goes with the VM, whose files are written back
	}
	ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
	defer cancel()
	if err := c.client.Call(ctx, wire.MethodDeleteContainer, &wire.DeleteContainer{ID: c.id}, nil); err != nil {
		c.log.Debug("delete in the guest", "err", err)
	}
}
