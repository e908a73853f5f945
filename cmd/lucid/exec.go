package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

func (a *app) execCommand() *cli.Command {
	one := 1
	return &cli.Command{
		Name:         "exec",
		Usage:        "run one more process in a running container",
		ArgsUsage:    "CONTAINER-ID COMMAND [ARG...]",
		StopOnNthArg: &one,
		Flags:        execFlags(),
		// A comma belongs to the value of --env.
		DisableSliceFlagSeparator: true,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, atLeast); err != nil {
				return err
			}
			status, err := a.exec(ctx, cmd)
			a.status = status
			if err != nil {
				a.failed = runtime.ExecFailed
			}
			return err
		},
	}
}

func execFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "console-socket", Usage: "send the master end of the process's terminal to this AF_UNIX `SOCKET`"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "send a pidfd of the process's stand-in on the host to this AF_UNIX `SOCKET`"},
		&cli.StringFlag{Name: "cwd", Usage: "working `DIR` of the process"},
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "add `NAME=VALUE` to the container's environment; can be repeated"},
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the process a terminal"},
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "`UID[:GID]` of the process"},
		&cli.Int64SliceFlag{Name: "additional-gids", Aliases: []string{"g"}, Usage: "add a supplementary group `GID`; can be repeated"},
		&cli.StringFlag{Name: "process", Aliases: []string{"p"}, Usage: "take the whole process from a JSON `FILE`, as in config.json"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait"},
		&cli.StringFlag{Name: "pid-file", Usage: "write the pid of the process's stand-in on the host to this `FILE`"},
		&cli.StringFlag{Name: "process-label", Usage: "accepted for runc's callers"},
		&cli.StringFlag{Name: "apparmor", Usage: "accepted for runc's callers"},
		&cli.BoolFlag{Name: "no-new-privs", Usage: "set no_new_privs of the process"},
		&cli.StringSliceFlag{Name: "cap", Aliases: []string{"c"}, Usage: "add a `CAPABILITY`; can be repeated"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "accepted for runc's callers: host files cannot be passed into a VM"},
		&cli.StringSliceFlag{Name: "cgroup", Usage: "not supported: run the process in a sub-cgroup"},
		&cli.BoolFlag{Name: "ignore-paused", Usage: "wait for the end of a pause instead of failing"},
	}
}

// exec returns the exit status.
func (a *app) exec(ctx context.Context, cmd *cli.Command) (int, error) {
	c, err := a.container(cmd)
	if err != nil {
		return 0, err
	}
	state, err := c.State()
	if err != nil {
		return 0, err
	}
	if state.Status == runtime.Stopped {
		return 0, runtime.ErrExecStopped
	}
	process, err := execProcess(cmd, state.Bundle, c.Config())
	if err != nil {
		return 0, err
	}
	for _, g := range cmd.StringSlice("cgroup") {
		if g != "" && g != "/" {
			return 0, errors.New("--cgroup is not supported yet: " + g)
		}
	}
	if n := cmd.Int("preserve-fds"); n > 0 {
		a.log.Info(oci.NoEffect("--preserve-fds"), "fds", n)
	}
	for _, field := range oci.IgnoredInProcess(process) {
		a.log.Info(oci.NoEffect(field))
	}
	detach, console := cmd.Bool("detach"), cmd.String("console-socket")
	if err := checkTerminal(detach, process.Terminal, console); err != nil {
		return 0, err
	}
	s := &session{log: a.log, console: console, pidfd: cmd.String("pidfd-socket"), pidFile: cmd.String("pid-file")}
	defer s.close()
	cfg := runtime.ExecConfig{
		Process: process, IgnorePaused: cmd.Bool("ignore-paused"), Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
	}
	if detach {
		rt, err := a.runtime()
		if err != nil {
			return 0, err
		}
		return 0, s.execDetached(ctx, rt, c.ID(), cfg)
	}
	return s.execForeground(ctx, c, cfg)
}

// execProcess is the process that the command line asks for.
func execProcess(cmd *cli.Command, bundle, config string) (*specs.Process, error) {
	if path := cmd.String("process"); path != "" {
		return oci.LoadProcess(path)
	}
	spec, err := oci.LoadFile(bundle, config)
	if err != nil {
		return nil, err
	}
	p := spec.Process
	if p.Args = cmd.Args().Tail(); len(p.Args) == 0 {
		return nil, errors.New("process args cannot be empty") // runc's words
	}
	if cwd := cmd.String("cwd"); cwd != "" {
		p.Cwd = cwd
	}
	if caps := cmd.StringSlice("cap"); len(caps) > 0 {
		if p.Capabilities == nil {
			p.Capabilities = &specs.LinuxCapabilities{}
		}
		for _, set := range []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted} {
			*set = append(*set, caps...)
		}
	}
	p.Env = append(p.Env, cmd.StringSlice("env")...)
	p.Terminal = cmd.Bool("tty")
	p.ConsoleSize = nil
	if cmd.IsSet("no-new-privs") {
		p.NoNewPrivileges = cmd.Bool("no-new-privs")
	}
	if err := setUser(&p.User, cmd.String("user"), cmd.Int64Slice("additional-gids")); err != nil {
		return nil, err
	}
	return p, oci.ValidateProcess(p)
}

func setUser(u *specs.User, user string, groups []int64) error {
	if user != "" {
		uid, gid, both := strings.Cut(user, ":")
		if both {
			n, err := strconv.ParseUint(gid, 10, 32)
			if err != nil {
				return fmt.Errorf("parsing %s as int for gid failed: %w", gid, err)
			}
			u.GID = uint32(n)
		}
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("parsing %s as int for uid failed: %w", uid, err)
		}
		u.UID = uint32(n)
	}
	for _, g := range groups {
		if g < 0 || g > 1<<32-2 {
			return fmt.Errorf("additional-gids must be a positive number %d", g)
		}
		u.AdditionalGids = append(u.AdditionalGids, uint32(g))
	}
	return nil
}

// execTerminal makes the terminal of a detached process.
func (s *session) execTerminal(cfg *runtime.ExecConfig) error {
	t, err := newTTY(cfg.Process.ConsoleSize)
	if err != nil {
		return err
	}
	s.tty = t
	cfg.Stdio = [3]*os.File{t.slave, t.slave, t.slave}
	if err := sendFile(s.console, t.master); err != nil {
		return fmt.Errorf("--console-socket: %w", err)
	}
	return nil
}

func (s *session) execDetached(ctx context.Context, rt *runtime.Runtime, id string, cfg runtime.ExecConfig) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	if cfg.Process.Terminal {
		if err := s.execTerminal(&cfg); err != nil {
			return err
		}
	}
	d, err := rt.ExecDetached(ctx, id, cfg)
	if err != nil {
		return err
	}
	if err := s.announce(d.Pid); err != nil {
		d.Discard()
		return err
	}
	return d.Commit()
}

// execForeground stands for the process itself.
func (s *session) execForeground(ctx context.Context, c *runtime.Container, cfg runtime.ExecConfig) (int, error) {
	signals := runtime.CatchSignals()
	starting, stop := interruptible(ctx)
	defer stop()
	var resized func()
	var e *runtime.Exec // set before a signal can ask for it
	if cfg.Process.Terminal {
		host, err := newHostTerminal()
		if err != nil {
			return 0, err
		}
		defer host.reset()
		cfg.Process.ConsoleSize = host.size()
		resized = func() {
			if box := host.size(); box != nil {
				_ = e.Resize(uint16(box.Width), uint16(box.Height)) // it may have ended
			}
		}
	}
	var err error
	if e, err = c.Exec(starting, cfg); err != nil {
		return 0, err
	}
	stop()
	if err := s.announce(os.Getpid()); err != nil {
		return 0, err // and the process ends with this one
	}
	go e.RoutineSignals(signals, resized)
	return e.Wait(), nil
}
