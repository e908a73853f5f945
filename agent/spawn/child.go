package spawn

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrGone is returned when the child died while it did not fail a step:
// somebody killed it.
var ErrGone = errors.New("process was killed before it ran its program")

// StepError is the failure of one system call in the child, which is then dead.
type StepError struct {
	Name  string
	Errno unix.Errno
}

func (e *StepError) Error() string { return e.Name + ": " + e.Errno.Error() }
func (e *StepError) Unwrap() error { return e.Errno }

// Config says what kind of child to make.
type Config struct {
	// Flags are CLONE_NEW… flags. The child is in the namespaces of the
	// calling thread otherwise.
	Flags uint64
	// CgroupFD is the cgroup to start in; negative: the caller's.
	CgroupFD int
}

// Child is a process that runs programs. Its memory is that of the agent.
type Child struct {
	Pid   int
	PidFD int // belongs to the Child until Forget

	ctl  *control
	ran  uint32     // programs given to the child
	keep []*Program // alive as long as the child can read them
}

// Clone makes a child of the calling thread. Whoever waits for children must
// know it before the child can end: see reap.Reaper.Spawn.
func Clone(cfg Config) (*Child, error) {
	c := &Child{ctl: &control{state: 1}}
	var err error
	c.Pid, c.PidFD, err = clone(cfg.Flags, cfg.CgroupFD, c.ctl)
	if err != nil {
		return nil, err
	}
	live.add(c)
	return c, nil
}

// Run has the child execute p and waits until it has.
func (c *Child) Run(p *Program) error {
	c.begin(p)
	c.ran++
	for {
		switch s := atomic.LoadUint32(&c.ctl.state); {
		case s == 0:
			return c.failure(p)
		case s > c.ran:
			return nil
		default:
			futexWait(&c.ctl.state, s)
		}
	}
}

// Exec has the child execute p, which ends with execve, and waits until the
// new program runs. A *StepError says that it does not.
func (c *Child) Exec(p *Program) error {
	c.begin(p)
	for {
		s := atomic.LoadUint32(&c.ctl.state)
		if s == 0 {
			break
		}
		futexWait(&c.ctl.state, s)
	}
	err := c.failure(p)
	if errors.Is(err, ErrGone) && c.ctl.failedStep(p.steps) == len(p.steps)-2 {
		return nil // the step before the end mark: execve
	}
	return err
}

func (c *Child) begin(p *Program) {
	p.add("end", stepEnd, 0, nil)
	c.keep = append(c.keep, p)
	c.ctl.open(p.steps)
}

// failure says why the child has left p.
func (c *Child) failure(p *Program) error {
	if c.ctl.errno == 0 {
		return ErrGone
	}
	name := "unknown step"
	if i := c.ctl.failedStep(p.steps); i >= 0 && i < len(p.names) {
		name = p.names[i]
	}
	return &StepError{Name: name, Errno: unix.Errno(c.ctl.errno)}
}

// Running reports whether the child has neither exec'd nor died.
func (c *Child) Running() bool { return atomic.LoadUint32(&c.ctl.state) != 0 }

// Signal sends a signal to the process, if it has not been waited for.
func (c *Child) Signal(sig unix.Signal) error {
	return unix.PidfdSendSignal(c.PidFD, sig, nil, 0)
}

// Forget frees the child's memory and its pidfd. The process must have exec'd
// or been waited for.
func (c *Child) Forget() {
	live.remove(c)
	_ = unix.Close(c.PidFD)
}
