package container

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/agent/stdio"
	"github.com/lucid-containers/lucid/internal/wire"
)

// drainLimit is how long an exit report waits for the host to take the output.
// The counts in the report tell it the rest.
const drainLimit = 2 * time.Second

// Container is one container.
type Container struct {
	id     string
	cfg    *Config
	cgroup *cgroup
	devpts int // its top directory; -1 without one
	around surroundings
	hooks  hooks

	mu      sync.Mutex
	init    *process            // protected by mu; never nil
	start   *spawn.Program      // protected by mu; nil once Start has taken it
	execs   map[string]*process // protected by mu; nil while one is made
	deleted bool                // protected by mu

	oomMu    sync.Mutex // held during a report: one is sent before the exit that follows
	oomKills uint64     // that have been reported; protected by oomMu
}

// process is one process that the host asked for.
type process struct {
	execID string
	child  *spawn.Child
	reaped *reap.Process
	io     *stdio.Stdio
	exited chan struct{} // closed when the status has been taken
	done   chan struct{} // closed when nothing of it is left
}

func newProcess(execID string, child *spawn.Child, reaped *reap.Process, io *stdio.Stdio) *process {
	return &process{
		execID: execID, child: child, reaped: reaped, io: io,
		exited: make(chan struct{}), done: make(chan struct{}),
	}
}

// ended reports whether the process is dead.
func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// RoutineWait reports the end of a process, and ends when its output does or
// the container is deleted, which waits for it.
func (c *Container) RoutineWait(p *process) {
	defer close(p.done)
	status := <-p.reaped.Done
	close(p.exited)
	if p.execID == "" {
		c.reportOOM()
	}
	stdout, stderr := p.io.Drain(drainLimit)
	c.cfg.OnExit(&wire.ContainerExited{
		ID: c.id, ExecID: p.execID, Status: status, Stdout: stdout, Stderr: stderr,
	})
	if p.execID == "" {
		p.io.Wait()
		return // Delete frees the rest
	}
	c.mu.Lock()
	delete(c.execs, p.execID)
	c.execs["\x00"+p.execID] = p // Delete finds it, nobody else
	c.mu.Unlock()
	p.io.Wait()
	p.io.Close()
	p.child.Forget()
	c.mu.Lock()
	delete(c.execs, "\x00"+p.execID)
	c.mu.Unlock()
}

// find returns a process of the container.
func (c *Container) find(execID string) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if execID == "" {
		return c.init, nil
	}
	if p := c.execs[execID]; p != nil && execID[0] != 0 {
		return p, nil
	}
	return nil, errNoProcess
}

// Start runs the process of a created container, after its hooks.
func (s *Set) Start(r *wire.StartContainer) error {
	c, err := s.get(r.ID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.init.ended():
		return errStopped
	case c.start == nil:
		return errStarted
	}
	prog := c.start
	c.start = nil
	if len(c.hooks.list) > 0 {
		// They take their time, and the container can be killed meanwhile.
		c.mu.Unlock()
		err = c.runHooks()
		c.mu.Lock()
		switch {
		case err != nil:
			_ = c.init.child.Signal(unix.SIGKILL) // runtime-spec, "Lifecycle": it is stopped
			return err
		case c.deleted || c.init.ended():
			return errStopped
		}
	}
	return runProgram(c.init.child, prog)
}

// runProgram has the child exec. A child that is killed meanwhile is no
// failure: its exit is reported.
func runProgram(child *spawn.Child, prog *spawn.Program) error {
	err := child.Exec(prog)
	if err == nil || errors.Is(err, spawn.ErrGone) {
		return nil
	}
	return err
}

// Signal sends a signal to one process or to all.
func (s *Set) Signal(r *wire.Signal) error {
	c, err := s.get(r.ID)
	if err != nil {
		return err
	}
	if r.All {
		return c.signalAll(unix.Signal(r.Signal))
	}
	p, err := c.find(r.ExecID)
	if err != nil {
		return err
	}
	if p.ended() {
		return errNotRunning
	}
	err = p.child.Signal(unix.Signal(r.Signal))
	if errors.Is(err, unix.ESRCH) {
		return errNotRunning
	}
	return err
}

func (c *Container) signalAll(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return c.cgroup.kill()
	}
	pids, err := c.cgroup.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}

// process finds the process of a container that execID names.
func (s *Set) process(id, execID string) (*process, error) {
	c, err := s.get(id)
	if err != nil {
		return nil, err
	}
	return c.find(execID)
}

// Resize sets the size of a process's terminal.
func (s *Set) Resize(r *wire.ResizeTTY) error {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	return p.io.Resize(r.Width, r.Height)
}

// CloseStdin ends a process's stdin.
func (s *Set) CloseStdin(r *wire.CloseStdin) error {
	p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	p.io.CloseStdin()
	return nil
}

// Pids lists the processes of a container.
func (s *Set) Pids(r *wire.Pids) (*wire.PidsResult, error) {
	c, err := s.get(r.ID)
	if err != nil {
		return nil, err
	}
	pids, err := c.cgroup.pids()
	return &wire.PidsResult{Pids: pids}, err
}

// Stats reads the counters of a container, or of all.
func (s *Set) Stats(r *wire.Stats) (*wire.StatsResult, error) {
	g := &cgroup{dir: s.cfg.CgroupParent, fd: -1}
	if r.ID != "" {
		c, err := s.get(r.ID)
		if err != nil {
			return nil, err
		}
		g = c.cgroup
	}
	cpu, mem, events := g.fields("cpu.stat"), g.fields("memory.stat"), g.fields("memory.events")
	return &wire.StatsResult{
		CPUUsageUS: cpu["usage_usec"], CPUUserUS: cpu["user_usec"], CPUSystemUS: cpu["system_usec"],
		CPUPeriods: cpu["nr_periods"], CPUThrottled: cpu["nr_throttled"], CPUThrottledUS: cpu["throttled_usec"],
		MemoryCurrent: g.number("memory.current"), MemoryPeak: g.number("memory.peak"),
		MemoryMax: g.number("memory.max"), MemoryFile: mem["file"], MemoryInactive: mem["inactive_file"],
		MemoryOOMKills: events["oom_kill"],
		PidsCurrent:    g.number("pids.current"), PidsMax: g.number("pids.max"),
	}, nil
}

// Delete kills what is left of a container and frees what it used.
func (s *Set) Delete(r *wire.DeleteContainer) error {
	c, err := s.get(r.ID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	deleted := c.deleted
	c.deleted = true
	processes := []*process{c.init}
	for _, p := range c.execs {
		if p != nil {
			processes = append(processes, p)
		}
	}
	c.mu.Unlock()
	if deleted {
		return errNotExist
	}
	s.oom.remove(c)
	// The reaper must be able to take the statuses before the cgroup is
	// empty, and with the init of a pid namespace all others die.
	_ = c.init.child.Signal(unix.SIGKILL)
	err = c.cgroup.remove()
	for _, p := range processes {
		_ = p.child.Signal(unix.SIGKILL)
		<-p.exited
		p.io.Close()
		<-p.done
	}
	c.init.child.Forget()
	if c.devpts >= 0 {
		_ = unix.Close(c.devpts)
	}
	s.put(r.ID, nil)
	return err
}
