package runtime

// How a container comes to be:
//
//	Create  make ROOT/ID, choose where the VM begins (template.go), lock it, write the record, spawn the sandbox process
//	        with the launch socket, write its pid down, unlock
//	        ── configuration ──▶ sandbox: VM up, agent's hello, container built
//	        ◀── ready or error ──
//	        run the host's hooks
//	        lock, see that nobody deleted the container, record "committed", unlock
//	        ── commit ──▶ from here on the sandbox process lives on its own
//
// The lock is not held while the VM starts, so `delete --force` and `state`
// work meanwhile.

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// CreateConfig says what to create.
type CreateConfig struct {
	ID     string
	Bundle string // absolute
	Config string // the bundle's file, if it is not config.json (oci.LoadFile)
	// Spec gives the record its version, annotations and hooks; Plan is what
	// is carried out.
	Spec *specs.Spec
	Plan *oci.Plan
	// Kernel and Initramfs are host paths.
	Kernel    string
	Initramfs string
	// Stdio are the container's fds 0 to 2. With Terminal they are one pty in
	// raw mode.
	Stdio    [3]*os.File
	Terminal bool
	// SandboxLog is where the sandbox process logs; nil means sandbox.log in
	// the state directory.
	SandboxLog *os.File
	// Pod is the ID of a container whose plan has Placeholder set, and whose VM
	// this one joins; empty: it gets its own. Kernel, Initramfs and Template
	// then have no meaning.
	Pod string
	// Bound makes the container end with this process.
	Bound   bool
	LogJSON bool
	Debug   bool
	// SystemdCgroup has systemd make the cgroup, of a linux.cgroupsPath of the
	// form SLICE:PREFIX:NAME.
	SystemdCgroup bool
	Profile       string // directory for what the sandbox measures of itself; empty: none
	// Template is where the VM begins: template.Off or empty for a boot,
	// template.Auto, or the name of a template that is there.
	Template string

	template     string // directory to begin from
	makeTemplate string // directory to save a VM into
}

// Create builds a container up to the point where only its process is
// missing. On any error nothing is left. When ctx ends before that, it is an
// error like any other.
func (r *Runtime) Create(ctx context.Context, cfg CreateConfig) (_ *Container, err error) {
	if err := checkID(cfg.ID); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.root, 0o700); err != nil {
		return nil, err
	}
	dir := r.dir(cfg.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, ErrExist
		}
		return nil, err
	}
	c := &Container{dir: dir, id: cfg.ID, log: r.log}
	c.rec.Token = rand.Text()
	defer func() {
		if err != nil {
			r.undo(c)
		}
	}()
	if cfg.Pod == "" {
		if cfg.template, err = r.chooseTemplate(ctx, &cfg); err != nil {
			return nil, err
		}
	}
	launch, err := r.launch(ctx, c, cfg)
	if cfg.template != "" && templateRefused(err) {
		r.log.Warn("booting: " + err.Error())
		r.doubt(cfg.template)
		c.leaveScope() // the next one needs its name
		cfg.template = ""
		launch, err = r.launch(ctx, c, cfg)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil && cfg.Bound {
			c.launch = launch
			return
		}
		_ = launch.Close()
	}()
	defer context.AfterFunc(ctx, func() { _ = launch.SetDeadline(time.Unix(1, 0)) })()
	if err := c.hooksCreate(); err != nil {
		return nil, err
	}
	if err := c.commit(); err != nil {
		return nil, err
	}
	if err := control.Send(launch, control.Commit{Bound: cfg.Bound}); err != nil {
		return nil, fmt.Errorf("sandbox process: %w", err)
	}
	return c, nil
}

// launch brings a sandbox process to where it has a container. On error it has
// ended.
func (r *Runtime) launch(ctx context.Context, c *Container, cfg CreateConfig) (*os.File, error) {
	launch, err := r.spawn(c, cfg)
	if err != nil {
		return nil, err
	}
	// Ends the waiting below.
	defer context.AfterFunc(ctx, func() { _ = launch.SetDeadline(time.Unix(1, 0)) })()
	if err = handshake(launch, c, cfg); err == nil {
		return launch, nil
	}
	_ = launch.Close()
	c.endChild()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// endChild ends the sandbox process that this process has started, if there is
// one.
func (c *Container) endChild() {
	if c.child == nil {
		return
	}
	_ = c.child.cmd.Process.Kill() // an error says that it has ended
	<-c.child.exited
	// The next one listens there, should there be one.
	_ = os.Remove(filepath.Join(c.dir, control.SocketName))
}

// spawn writes the first record and starts the sandbox process. It returns
// the creator's end of the launch socket.
func (r *Runtime) spawn(c *Container, cfg CreateConfig) (*os.File, error) {
	l, err := newLock(c.dir)
	if errors.Is(err, ErrNotExist) {
		return nil, errors.New(textGoneInCreation)
	}
	if err != nil {
		return nil, err
	}
	defer l.Close()
	c.rec = record{
		Pod: cfg.Pod, Token: c.rec.Token, Version: cfg.Spec.Version, ID: cfg.ID, Bundle: cfg.Bundle, Config: cfg.Config, Rootfs: cfg.Plan.Host.Rootfs.Path,
		Created: time.Now().UTC(), Annotations: cfg.Spec.Annotations, Hooks: cfg.Plan.Host.Hooks, Cgroups: c.rec.Cgroups,
	}
	if cfg.Plan.Placeholder {
		c.rec.Shares = oci.NewPod(cfg.Spec)
	}
	place, err := c.findPlace(cfg)
	if err != nil {
		return nil, err
	}
	if err := writeRecord(c.dir, &c.rec); err != nil {
		return nil, err
	}
	ours, err := r.start(c, cfg)
	if err != nil {
		return nil, err
	}
	c.rec.Pid = c.child.cmd.Process.Pid
	if c.rec.StartTime, err = startTime(c.rec.Pid); err == nil {
		err = c.enter(place, cfg)
	}
	if err == nil {
		err = writeRecord(c.dir, &c.rec)
	}
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	return ours, nil
}

// start runs the sandbox command with its descriptors (control.LaunchFD and
// following).
func (r *Runtime) start(c *Container, cfg CreateConfig) (*os.File, error) {
	ours, theirs, err := launchPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	files, err := c.inherited(theirs, cfg)
	for _, f := range files[1:] {
		defer f.Close()
	}
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	cmd := exec.Command(r.sandbox[0], append(r.sandbox[1:len(r.sandbox):len(r.sandbox)], c.id)...)
	cmd.Args[0] = "lucid"
	cmd.Env, cmd.Dir = append(slices.Clip(r.env), maxProcs(cfg.Plan.VM.VCPUs)), "/" // of two GOMAXPROCS the last counts (os/exec)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = cfg.Stdio[0], cfg.Stdio[1], cfg.Stdio[2]
	cmd.ExtraFiles = files
	// A session of its own: a terminal's hang-up or ^C is not for it. With a
	// pty, that is its terminal, so that it hears of new window sizes. No
	// PDEATHSIG: it outlives us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: cfg.Terminal, Ctty: 0}
	c.spawned = control.Now()
	if err := startIn(cmd, &cfg.Plan.Host); err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("sandbox process: %w", err)
	}
	c.child = &child{cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // ProcessState is what counts
		close(c.child.exited)
	}()
	return ours, nil
}

// inherited opens what the sandbox process gets from fd 3 on. The first is
// theirs; the rest are the caller's to close, also on error.
func (c *Container) inherited(theirs *os.File, cfg CreateConfig) ([]*os.File, error) {
	files := []*os.File{theirs}
	state, err := os.OpenFile(c.dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return files, err
	}
	files = append(files, state)
	live, err := os.OpenFile(filepath.Join(c.dir, aliveFile), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return files, err
	}
	files = append(files, live)
	// The lock belongs to the open file, so the process inherits it.
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	if err := flockWait(ctx, live); err != nil {
		return files, err
	}
	var log *os.File
	if cfg.SandboxLog != nil {
		fd, err := unix.FcntlInt(cfg.SandboxLog.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return files, os.NewSyscallError("dup", err)
		}
		log = os.NewFile(uintptr(fd), cfg.SandboxLog.Name())
	} else {
		log, err = os.OpenFile(filepath.Join(c.dir, "sandbox.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return files, err
		}
	}
	return append(files, log), nil
}

// sendLaunch sends the configuration.
func sendLaunch(launch *os.File, c *Container, cfg CreateConfig) error {
	l := control.Launch{
		ID: cfg.ID, Kernel: cfg.Kernel, Initramfs: cfg.Initramfs, Terminal: cfg.Terminal,
		Debug: cfg.Debug, Profile: cfg.Profile, LogJSON: cfg.LogJSON, Spawned: c.spawned,
		Template: cfg.template, MakeTemplate: cfg.makeTemplate,
	}
	if cfg.Pod != "" {
		l.Pod = podDir(c.dir, cfg.Pod)
	}
	var err error
	// The VM of a pod may be an older program's, and a shim starts what is installed when it does.
	if l.Pod == "" && c.child.cmd.Path == OwnProgram {
		l.Packed, err = wire.Marshal(cfg.Plan)
	} else {
		l.Plan, err = json.Marshal(cfg.Plan)
	}
	if err != nil {
		return err
	}
	return control.Send(launch, l)
}

// handshake sends the configuration and waits for the sandbox's word.
func handshake(launch *os.File, c *Container, cfg CreateConfig) error {
	err := sendLaunch(launch, c, cfg)
	var ready control.Ready
	if err == nil {
		err = control.Receive(launch, &ready)
	}
	switch {
	case err == nil && ready.Error != nil:
		return ready.Error
	case err == nil:
		return nil
	case hungUp(err):
		// The socket closed: the process is ending or has ended.
		select {
		case <-c.child.exited:
			return fmt.Errorf("sandbox process ended before it was ready: %s", c.child.cmd.ProcessState)
		case <-time.After(killTimeout):
		}
	}
	return fmt.Errorf("sandbox process: %w", err)
}

// commit records success, unless the container was deleted meanwhile.
func (c *Container) commit() error {
	l, err := lock(c.dir)
	if errors.Is(err, ErrNotExist) {
		return errors.New(textGoneInCreation)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if !c.mine() {
		return errors.New(textGoneInCreation) // and its ID has been taken since
	}
	if !alive(c.dir) {
		return errors.New("sandbox process was killed while the container was being created")
	}
	c.rec.Committed = true
	return writeRecord(c.dir, &c.rec)
}

// undo takes a container that failed to come to be away again.
func (r *Runtime) undo(c *Container) {
	c.endChild()
	if err := r.delete(c.id, true, c.rec.Token); err != nil {
		r.log.Error("cannot clean up", "dir", c.dir, "err", err)
	}
}
