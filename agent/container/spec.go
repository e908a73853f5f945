package container

import (
	"errors"
	"path"
	"strings"

	"github.com/lucid-containers/lucid/internal/wire"
)

// invalidError is for a spec that makes no sense; the server reports it as
// wire.KindInvalid.
type invalidError string

func (e invalidError) Error() string { return string(e) }

// IsInvalid reports whether err blames the request.
func IsInvalid(err error) bool {
	var e invalidError
	return errors.As(err, &e)
}

// Parts of config.json.
type (
	Spec        = wire.Spec
	Process     = wire.Process
	Hooks       = wire.Hooks
	Hook        = wire.Hook
	Mount       = wire.Mount
	Resources   = wire.Resources
	Device      = wire.Device
	Scheduler   = wire.Scheduler
	Rlimit      = wire.Rlimit
	Namespace   = wire.Namespace
	Personality = wire.Personality
	IDMapping   = wire.IDMapping
	TimeOffset  = wire.TimeOffset
	Box         = wire.Box
	User        = wire.User
	Linux       = wire.Linux

	Capabilities = wire.Capabilities
)

// checkSpec checks the guest's part of config.json, and fills in what it may lack.
func checkSpec(s *Spec) error {
	if s.Process == nil {
		return invalidError("process: missing")
	}
	if s.Linux == nil {
		s.Linux = new(Linux)
	}
	if err := checkProcess(s.Process); err != nil {
		return err
	}
	if err := checkHooks(s.Hooks); err != nil {
		return err
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Destination == "" || hasNUL(m.Destination, m.Source, m.Type) || hasNUL(m.Options...) {
			return invalidError("mounts: bad destination, source or option")
		}
		// Relative destinations are relative to / (OCI 1.2).
		m.Destination = path.Clean("/" + m.Destination)
		if m.Destination == "/" {
			return invalidError("mounts: cannot mount on /")
		}
	}
	return nil
}

func checkProcess(p *Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return invalidError("process.args: empty")
	}
	if hasNUL(p.Args...) || hasNUL(p.Env...) || hasNUL(p.Cwd) {
		return invalidError("process: a string contains NUL")
	}
	if !path.IsAbs(p.Cwd) {
		return invalidError("process.cwd: not an absolute path")
	}
	return nil
}

// hasNUL reports whether a string could not go through a system call whole.
func hasNUL(list ...string) bool {
	for _, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			return true
		}
	}
	return false
}

// envOf returns the value of a variable; the last one counts, as in a shell.
func envOf(p *Process, name string) (string, bool) {
	for i := len(p.Env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(p.Env[i], "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}
