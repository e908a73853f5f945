package main

// What create and run share: from the command line to a created container.
//
//	newSession  flags, config.json, plan: nothing is made yet
//	create      terminal → runtime.Create → console hand-over → pid file
//	runForeground, runDetached  and then

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/assets"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// session is one create or run.
type session struct {
	log     *logger
	rt      *runtime.Runtime
	spec    *specs.Spec
	cfg     runtime.CreateConfig
	tty     *tty // nil without process.terminal
	console string
	pidfd   string
	pidFile string
}

// newSession reads everything and changes nothing.
func (a *app) newSession(cmd *cli.Command, detach bool) (*session, error) {
	bundle, err := filepath.Abs(cmd.String("bundle"))
	if err != nil {
		return nil, err
	}
	config := cmp.Or(cmd.String("config"), oci.ConfigFile)
	spec, err := oci.LoadFile(bundle, config)
	if err != nil {
		return nil, err
	}
	console := cmd.String("console-socket")
	terminal := spec.Process.Terminal
	if err := checkTerminal(detach, terminal, console); err != nil {
		return nil, err
	}
	rt, err := a.runtime()
	if err != nil {
		return nil, err
	}
	plan, pod, err := split(rt, spec, bundle, cmd.Args().First())
	if err != nil {
		return nil, err
	}
	if t := cmd.String("transport"); t != "" {
		plan.VM.Transport = t
	}
	if cmd.Bool("debug-uart") {
		plan.VM.DebugUART = true
	}
	for _, field := range plan.Ignored {
		a.log.Info(oci.NoEffect(field))
	}
	if n := cmd.Int("preserve-fds"); n > 0 {
		a.log.Info(oci.NoEffect("--preserve-fds"), "fds", n)
	}
	kernel, err := assets.Find(assets.Kernel, cmd.String("kernel"), plan.VM.Kernel)
	if err != nil {
		return nil, err
	}
	initramfs, err := assets.Find(assets.Initramfs, cmd.String("initramfs"), plan.VM.Initrd)
	if err != nil {
		return nil, err
	}
	profile, err := profileDir(cmd.String("profile"))
	if err != nil {
		return nil, err
	}
	fallback, err := runtime.TemplateFromEnv()
	if err != nil {
		return nil, err
	}
	s := &session{
		log: a.log, rt: rt, spec: spec, console: console,
		pidfd: cmd.String("pidfd-socket"), pidFile: cmd.String("pid-file"),
		cfg: runtime.CreateConfig{
			ID: cmd.Args().First(), Pod: pod, Bundle: bundle, Config: config, Spec: spec, Plan: plan, Kernel: kernel, Initramfs: initramfs,
			Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, Terminal: terminal,
			SystemdCgroup: systemdCgroup(cmd), SandboxLog: a.log.file, LogJSON: a.log.json, Debug: a.log.debug, Profile: profile,
			Template: cmp.Or(cmd.String("template"), plan.VM.Template, fallback),
		},
	}
	if a.log.debug && a.log.file == nil {
		s.cfg.SandboxLog = os.Stderr
	}
	return s, nil
}

// split says what is to be done, and in which pod's VM; empty: in one of its own
// (docs/flows/pods.md).
func split(rt *runtime.Runtime, spec *specs.Spec, bundle, id string) (plan *oci.Plan, pod string, err error) {
	role, name := oci.RoleOf(spec.Annotations, id)
	if role != oci.Member { // groups are the shim's: somebody has to end the VM after the last one
		plan, err = oci.SplitAs(role, spec, bundle, nil)
		return plan, "", err
	}
	known, err := rt.PodFor(name)
	if err != nil {
		return nil, "", err
	}
	plan, err = oci.SplitAs(role, spec, bundle, known)
	return plan, name, err
}

// checkTerminal has runc's words.
func checkTerminal(detach, terminal bool, console string) error {
	if detach && terminal && console == "" {
		return errors.New("cannot allocate tty if lucid will detach without setting console socket")
	}
	if (!detach || !terminal) && console != "" {
		return errors.New("cannot use console socket if lucid will not detach or allocate tty")
	}
	return nil
}

func (s *session) close() {
	if s.tty != nil {
		s.tty.close()
	}
}

// create makes the container. The pid file comes last, after the console.
func (s *session) create(ctx context.Context) (*runtime.Container, error) {
	if s.cfg.Terminal {
		t, err := newTTY(s.spec.Process.ConsoleSize)
		if err != nil {
			return nil, err
		}
		s.tty = t
		s.cfg.Stdio = [3]*os.File{t.slave, t.slave, t.slave}
		if s.console != "" {
			if err := sendFile(s.console, t.master); err != nil {
				return nil, fmt.Errorf("--console-socket: %w", err)
			}
		}
	}
	c, err := s.rt.Create(ctx, s.cfg)
	if err != nil {
		return nil, err
	}
	if s.tty != nil {
		// Only the sandbox may hold it: its exit is the terminal's end.
		s.tty.closeSlave()
	}
	if err := s.announce(c.Pid()); err != nil {
		s.discard(c)
		return nil, err
	}
	return c, nil
}

// announce tells the caller the pid.
func (s *session) announce(pid int) error {
	if s.pidfd != "" {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return os.NewSyscallError("pidfd_open", err)
		}
		f := os.NewFile(uintptr(fd), "pidfd")
		defer f.Close()
		if err := sendFile(s.pidfd, f); err != nil {
			return fmt.Errorf("--pidfd-socket: %w", err)
		}
	}
	if s.pidFile == "" {
		return nil
	}
	return runtime.WriteFileAtomic(s.pidFile, []byte(strconv.Itoa(pid)), 0o644)
}

func (s *session) discard(c *runtime.Container) {
	if err := s.rt.Discard(c); err != nil {
		s.log.Warn("cannot delete the container", "id", c.ID(), "err", err)
	}
}

func (s *session) runDetached(ctx context.Context) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	c, err := s.create(ctx)
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		s.discard(c)
		return err
	}
	return nil
}

// runForeground stays with the container and returns its exit status.
func (s *session) runForeground(ctx context.Context, keep bool) (int, error) {
	creating, stop := interruptible(ctx)
	c, err := s.create(creating)
	// Before the other watch ends: no signal is to fall in between.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	stop()
	if err != nil {
		return 0, err
	}
	if !keep {
		defer s.discard(c)
	}
	if s.tty != nil {
		if err := s.tty.attach(); err != nil {
			s.discard(c)
			return 0, err
		}
	}
	go s.routineSignals(c, signals)
	if err := c.Start(); err != nil {
		if s.tty != nil {
			s.tty.close()
		}
		s.discard(c)
		return 0, err
	}
	status := c.Wait()
	if s.tty != nil {
		s.tty.drain()
		s.tty.close()
	}
	if s.log.debug {
		s.printTimeline(c)
	}
	return status, nil
}

// routineSignals forwards what this process gets, for as long as it lives.
func (s *session) routineSignals(c *runtime.Container, signals <-chan os.Signal) {
	for sig := range signals {
		switch sig {
		case unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE:
			// The first is the Go runtime's, the others are about this process.
		case unix.SIGWINCH:
			if s.tty != nil {
				s.tty.resize()
			}
		default:
			if err := c.Signal(sig.(unix.Signal)); err != nil {
				s.log.Debug("forward signal", "signal", sig, "err", err)
			}
		}
	}
}

// interruptible is a context that a signal ends, for the time in which there
// is no process yet to forward one to.
func interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		select {
		case sig := <-signals:
			cancel(fmt.Errorf("interrupted by signal: %s", sig))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// namedFile is what sendFile needs of an os.File or a console.Console.
type namedFile interface {
	Name() string
	Fd() uintptr
}

// sendFile connects to a socket and sends one file in one message, with its
// name as the payload.
func sendFile(socket string, f namedFile) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	const maxName = 4095 // containerd reads less than 4096 bytes
	name := []byte(f.Name())
	if len(name) > maxName {
		name = name[:maxName]
	}
	_, _, err = c.(*net.UnixConn).WriteMsgUnix(name, unix.UnixRights(int(f.Fd())), nil)
	return err
}

// printTimeline tells --debug where the time went.
func (s *session) printTimeline(c *runtime.Container) {
	t, err := c.Timeline()
	if err != nil {
		s.log.Warn("no timeline", "err", err)
		return
	}
	fmt.Fprint(os.Stderr, formatTimeline(c.ID(), t))
}

func formatTimeline(id string, t control.Timeline) string {
	var b strings.Builder
	fmt.Fprintf(&b, "timeline of %s, in ms:\n", id)
	for _, name := range control.MarkNames {
		if at, ok := t.Marks[name]; ok {
			fmt.Fprintf(&b, "  %-14s %10.1f\n", name, at)
		}
	}
	fmt.Fprintf(&b, "VM exits by reason:%s\n", counters(t.Exits))
	fmt.Fprintf(&b, "assists by kind:%s\n", counters(t.Assists))
	return b.String()
}
