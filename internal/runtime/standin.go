package runtime

// A detached exec. The command that was called ends as soon as the process
// runs; what the caller sees of the process from then on is the stand-in:
//
//	lucid exec --detach ── spawn ──▶ lucid exec-process      its own session
//	   │── launch socket (fd 3): configuration ──▶ │── Exec ──▶ sandbox
//	   │◀── ready, or an error ────────────────────│
//	   │  pid file                                 │  signals, stdio
//	   │── commit ────────────────────────────────▶│
//	   ▼ exit 0                                    ▼ exit with the status
//
// It is reparented to the caller's subreaper, as the sandbox process is.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
)

// standInLaunch is the configuration of a stand-in.
type standInLaunch struct {
	Root, ID     string
	Process      *specs.Process
	IgnorePaused bool
}

// Detached is an exec whose stand-in is another process. It lasts if Commit
// is called.
type Detached struct {
	Pid    int
	cmd    *exec.Cmd
	launch *os.File
}

// Commit lets the stand-in live on its own.
func (d *Detached) Commit() error {
	defer d.launch.Close()
	return control.Send(d.launch, control.Commit{})
}

// Signal sends a signal to the stand-in, which forwards it if it can be caught
// (flows/exec.md). It is an error if it has ended.
func (d *Detached) Signal(sig unix.Signal) error { return d.cmd.Process.Signal(sig) }

// Wait returns the exit status. It is called once, by the process that called
// ExecDetached.
func (d *Detached) Wait() int {
	_ = d.cmd.Wait() // ProcessState is what counts
	return exitStatus(d.cmd.ProcessState)
}

// Discard ends it.
func (d *Detached) Discard() {
	_ = d.launch.Close()
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// ExecDetached runs a process with a stand-in of its own.
func (r *Runtime) ExecDetached(ctx context.Context, id string, cfg ExecConfig) (_ *Detached, err error) {
	c, err := r.Load(id)
	if err != nil {
		return nil, err
	}
	// Here too, so that a wrong state costs no process.
	if err := c.canExec(cfg.IgnorePaused); err != nil {
		return nil, err
	}
	d, err := r.startStandIn(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.Discard()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = d.launch.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = control.Send(d.launch, standInLaunch{Root: r.root, ID: id, Process: cfg.Process, IgnorePaused: cfg.IgnorePaused})
	var ready control.Ready
	if err == nil {
		err = control.Receive(d.launch, &ready)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("stand-in process: %w", err)
	case ready.Error != nil:
		return nil, ready.Error
	}
	return d, nil
}

// startStandIn starts the process with its descriptors.
func (r *Runtime) startStandIn(cfg ExecConfig) (*Detached, error) {
	if len(r.standIn) == 0 {
		return nil, errors.New("no command for stand-in processes is configured")
	}
	ours, theirs, err := launchPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(r.standIn[0], r.standIn[1:]...)
	cmd.Args[0] = "lucid"
	cmd.Env, cmd.Dir = r.env, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = cfg.Stdio[0], cfg.Stdio[1], cfg.Stdio[2]
	cmd.ExtraFiles = []*os.File{theirs}
	// As for the sandbox process (start in create.go).
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: cfg.Process.Terminal, Ctty: 0}
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("stand-in process: %w", err)
	}
	return &Detached{Pid: cmd.Process.Pid, cmd: cmd, launch: ours}, nil
}

// launchPair makes a launch socket. What the caller has open without
// close-on-exec, such as the pipes of another container, must not live on in
// the process that gets the other end.
func launchPair() (ours, theirs *os.File, err error) {
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("close_range", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(pair[0]), "launch"), os.NewFile(uintptr(pair[1]), "launch"), nil
}

// StandInMain is the stand-in process. It returns its exit status.
func StandInMain() int {
	signals := CatchSignals()
	var st unix.Stat_t
	if err := unix.Fstat(control.LaunchFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		fmt.Fprintln(os.Stderr, "lucid: this command is for lucid's own use: it inherits what it works on")
		return 1
	}
	unix.CloseOnExec(control.LaunchFD)
	launch := os.NewFile(control.LaunchFD, "launch")
	var l standInLaunch
	if err := control.Receive(launch, &l); err != nil {
		return 1 // the creator was killed: there is nobody to tell
	}
	e, err := standIn(&l)
	if err != nil {
		var ce *control.Error
		if !errors.As(err, &ce) {
			ce = &control.Error{Kind: control.KindInternal, Message: err.Error()}
		}
		_ = control.Send(launch, control.Ready{Error: ce})
		return ExecFailed
	}
	if err := control.Send(launch, control.Ready{}); err != nil {
		return ExecFailed
	}
	go func() {
		var commit control.Commit
		if err := control.Receive(launch, &commit); err != nil {
			os.Exit(ExecFailed) // nobody learned our pid
		}
		_ = launch.Close()
	}()
	go e.RoutineSignals(signals, nil)
	return e.Wait()
}

func standIn(l *standInLaunch) (*Exec, error) {
	if l.Process == nil || !filepath.IsAbs(l.Root) {
		return nil, io.ErrUnexpectedEOF
	}
	r, err := New(Config{Root: l.Root})
	if err != nil {
		return nil, err
	}
	c, err := r.Load(l.ID)
	if err != nil {
		return nil, err
	}
	cfg := ExecConfig{Process: l.Process, IgnorePaused: l.IgnorePaused, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	return c.Exec(context.Background(), cfg)
}

// ExecFailed is the exit status of an exec that did not come to run its
// process, which is runc's.
const ExecFailed = 255

// CatchSignals catches what a process that stands for another one forwards.
// It is called before that one exists, so that none is lost.
func CatchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	return signals
}

// RoutineSignals forwards signals for as long as this process lives. resized
// is told of a new window size; nil means that of the process's own stdin.
func (e *Exec) RoutineSignals(signals <-chan os.Signal, resized func()) {
	for sig := range signals {
		switch sig {
		case unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE:
			// The first is the Go runtime's, the others are about this process.
			continue
		case unix.SIGWINCH:
			if resized != nil {
				resized()
				continue
			}
			if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
				_ = e.Resize(ws.Col, ws.Row)
				continue
			}
		}
		_ = e.Signal(sig.(unix.Signal)) // it has ended, or ends with its sandbox
	}
}
