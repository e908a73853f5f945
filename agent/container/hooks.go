package container

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/stdio"
)

// The startContainer hooks run in the container when it has been told to start and before its process does (runtime-spec,
// config.md, "POSIX-platform Hooks"). As with runc they are what the process is: its user, capabilities, limits, seccomp
// filter and working directory, but an environment of their own. The other kinds are the host's.

const (
	// maxHookOutput bounds what of a hook's standard error is quoted.
	maxHookOutput = 2048
	// hookGrace is for the rest of the output of a hook that has ended: what
	// it left behind may hold the pipe.
	hookGrace = time.Second
)

// hooks is what a container needs to run them.
type hooks struct {
	list    []Hook
	state   []byte  // specs.State in JSON
	process Process // whose like they are
}

// checkHooks refuses what no system call could take, or would make no sense.
func checkHooks(h *Hooks) error {
	if h == nil {
		return nil
	}
	for i, hook := range h.StartContainer {
		field := "hooks.startContainer[" + strconv.Itoa(i) + "]"
		switch {
		case !path.IsAbs(hook.Path):
			return invalidError(field + ".path: not an absolute path")
		case hasNUL(hook.Path) || hasNUL(hook.Args...) || hasNUL(hook.Env...):
			return invalidError(field + ": a string contains NUL")
		case hook.Timeout != nil && *hook.Timeout <= 0:
			return invalidError(field + ".timeout: must be above 0")
		}
	}
	return nil
}

// hooks takes what the hooks need from a container that is being made. The pid
// in their state is the one that they see.
func (b *builder) hooks() (hooks, error) {
	if b.spec.Hooks == nil || len(b.spec.Hooks.StartContainer) == 0 {
		return hooks{}, nil
	}
	// An object with a field or more: the pid becomes the first.
	rest, ok := bytes.CutPrefix(b.state, []byte("{"))
	if !ok || len(rest) == 0 || rest[0] != '"' {
		return hooks{}, invalidError("state: not what a host sends")
	}
	pid := b.child.Pid
	if b.newPID {
		pid = 1
	}
	state := append([]byte(`{"pid":`+strconv.Itoa(pid)+","), rest...)
	return hooks{list: b.spec.Hooks.StartContainer, state: state, process: *b.spec.Process}, nil
}

// runHooks runs the hooks in their order. The first failure is the last.
func (c *Container) runHooks() error {
	for i := range c.hooks.list {
		h := &c.hooks.list[i]
		if text, err := c.runHook(h); err != nil {
			if text != "" {
				text = ": " + text
			}
			return fmt.Errorf("startContainer hook %s: %w%s", h.Path, err, text)
		}
	}
	return nil
}

// runHook runs one hook and returns what it wrote to its standard error.
func (c *Container) runHook(h *Hook) (text string, err error) {
	p := c.hooks.process
	p.Terminal, p.Env, p.Args = false, h.Env, h.Args
	if len(p.Args) == 0 {
		p.Args = []string{h.Path}
	}
	pipes, err := newHookPipes()
	if err != nil {
		return "", err
	}
	defer pipes.close()
	e := &execBuilder{c: c, spec: &p, hook: true, file: h.Path, stdio: &stdio.Stdio{Child: pipes.child}}
	if err := e.launch(); err != nil {
		return "", err
	}
	defer e.child.Forget()
	output := pipes.start(c.hooks.state)
	var late <-chan time.Time
	if h.Timeout != nil {
		timer := time.NewTimer(time.Duration(*h.Timeout) * time.Second)
		defer timer.Stop()
		late = timer.C
	}
	var status int
	select {
	case status = <-e.reaped.Done:
		if status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
	case <-late:
		_ = e.child.Signal(unix.SIGKILL)
		<-e.reaped.Done
		err = fmt.Errorf("still running after %d s", *h.Timeout)
	}
	pipes.end(hookGrace)
	return <-output, err
}

// hookPipes are the standard files of a hook.
type hookPipes struct {
	state  *os.File
	errors *os.File
	child  [3]int
}

func newHookPipes() (*hookPipes, error) {
	in, state, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	errors, out, err := os.Pipe()
	if err != nil {
		_ = state.Close()
		return nil, err
	}
	defer out.Close()
	p := &hookPipes{state: state, errors: errors, child: [3]int{-1, -1, -1}}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		p.close()
		return nil, err
	}
	defer null.Close()
	// Copies, which block as programs expect: Fd sees to that.
	for i, f := range []*os.File{in, null, out} {
		if p.child[i], err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			for _, fd := range p.child[:i] {
				_ = unix.Close(fd)
			}
			p.close()
			return nil, os.NewSyscallError("dup", err)
		}
	}
	return p, nil
}

// start writes the state and reads the output, of which the result gives the
// beginning when the pipe has ended.
func (p *hookPipes) start(state []byte) <-chan string {
	go func() {
		_, _ = p.state.Write(state) // a hook need not read it
		_ = p.state.Close()
	}()
	output := make(chan string, 1)
	go func() {
		output <- strings.TrimSpace(string(p.read()))
	}()
	return output
}

// read returns the beginning of what the pipe gives, when it has ended. By hand:
// io.Copy would link what it can do for sockets and files, 70 KB.
func (p *hookPipes) read() []byte {
	var text []byte
	for buf := make([]byte, 512); ; {
		n, err := p.errors.Read(buf)
		text = append(text, buf[:min(n, maxHookOutput-len(text))]...)
		if err != nil {
			return text
		}
	}
}

// end lets what has been written out, and ends both pipes after d at the latest.
func (p *hookPipes) end(d time.Duration) {
	_ = p.errors.SetReadDeadline(time.Now().Add(d))
	_ = p.state.SetWriteDeadline(time.Now())
}

func (p *hookPipes) close() {
	_ = p.state.Close()
	_ = p.errors.Close()
}
