package container

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/agent/stdio"
	"github.com/lucid-containers/lucid/internal/wire"
)

// containerNamespaces are those that an exec joins; where the container shares
// the guest's it is the same one.
const containerNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID

// Exec runs one more process in a container. after is as for Create.
func (s *Set) Exec(r *wire.Exec) (created *wire.Created, after func(), err error) {
	if err := checkProcess(&r.Process); err != nil {
		return nil, nil, err
	}
	c, err := s.get(r.ID)
	if err != nil {
		return nil, nil, err
	}
	if err := c.reserveExec(r.ExecID); err != nil {
		return nil, nil, err
	}
	e := &execBuilder{c: c, spec: &r.Process, io: r.IO}
	p, err := e.build(r.ExecID)
	c.mu.Lock()
	if err != nil {
		delete(c.execs, r.ExecID)
	} else {
		c.execs[r.ExecID] = p
	}
	deleted := c.deleted
	c.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	if deleted {
		// Delete did not see it: it dies with its cgroup, and cleans up
		// after itself when the output pipes close.
		_ = p.child.Signal(unix.SIGKILL)
	}
	return &wire.Created{Pid: p.child.Pid, Warnings: e.warnings}, func() { go c.RoutineWait(p) }, nil
}

// reserveExec takes an exec id.
func (c *Container) reserveExec(execID string) error {
	if execID == "" || len(execID) > maxIDLength || hasNUL(execID) {
		return invalidError("bad exec id")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleted || c.init.ended() || c.start != nil {
		return errExecDead
	}
	if _, taken := c.execs[execID]; taken {
		return errExecExists
	}
	if len(c.execs) >= maxProcesses {
		return errTooMany
	}
	c.execs[execID] = nil
	return nil
}

// execBuilder makes one process in a container that runs.
type execBuilder struct {
	c        *Container
	spec     *Process
	io       wire.IO
	child    *spawn.Child
	reaped   *reap.Process
	stdio    *stdio.Stdio
	hook     bool   // file is given, and the environment complete
	file     string // the program
	warnings []string
}

func (e *execBuilder) build(execID string) (*process, error) {
	pty, err := openTerminal(e.spec, e.c.devpts)
	if err != nil {
		return nil, err
	}
	e.stdio, err = stdio.Open(stdio.Config{Opener: e.c.cfg.Opener, IO: e.io, PTY: pty})
	if err != nil {
		return nil, err
	}
	if err := e.launch(); err != nil {
		return nil, err
	}
	return newProcess(execID, e.child, e.reaped, e.stdio), nil
}

// launch makes the process and runs its program. On an error nothing of it is
// left.
func (e *execBuilder) launch() error {
	err := onThread(e.onThread)
	if err == nil {
		err = setOffsets(e.child.Pid, e.c.around.offsets)
	}
	if adj := e.spec.OOMScoreAdj; err == nil && adj != nil {
		err = setOOMScore(e.child.Pid, *adj)
	}
	if err == nil {
		err = runProgram(e.child, execProgram(e.spec, e.file, e.c.around.filter))
	}
	if err != nil {
		e.abandon()
		return err
	}
	e.stdio.Start()
	return nil
}

// onThread joins the container and makes the process, which is then in the
// container's namespaces, root and cgroup from its first instruction.
func (e *execBuilder) onThread() error {
	// A thread that shares its root directory with others cannot join a
	// mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(e.c.init.child.PidFD, containerNamespaces); err != nil {
		if err == unix.ESRCH {
			return errExecDead
		}
		return os.NewSyscallError("setns", err)
	}
	p := e.spec
	if err := unix.Chdir(p.Cwd); err != nil {
		return &os.PathError{Op: "chdir to cwd (" + quote(p.Cwd) + ")", Path: p.Cwd, Err: err}
	}
	if err := e.program(); err != nil {
		return err
	}
	around := &e.c.around
	limit, err := limits(p, around)
	if err != nil {
		return err
	}
	if around.newUser {
		limit.Call("join user namespace", unix.SYS_SETNS, uintptr(e.c.init.child.PidFD), unix.CLONE_NEWUSER)
	}
	var prog *spawn.Program
	prog, e.warnings = finish(p, e.stdio.Child, around)
	if e.child, e.reaped, err = e.c.cgroup.clone(e.c.cfg.Reaper, 0); err != nil {
		return err
	}
	if err := e.child.Run(limit); err != nil {
		return err
	}
	if err := e.child.Run(prog); err != nil {
		return err
	}
	e.stdio.CloseChild()
	return nil
}

// program finds the program, from inside the container.
func (e *execBuilder) program() (err error) {
	if e.hook {
		return executable(e.file)
	}
	e.file, err = lookPath(e.spec)
	addHome(e.spec)
	return err
}

// abandon undoes what was made of the process.
func (e *execBuilder) abandon() {
	if e.child != nil {
		_ = e.child.Signal(unix.SIGKILL)
		<-e.reaped.Done
		e.child.Forget()
	}
	e.stdio.CloseChild()
	e.stdio.Close()
}
