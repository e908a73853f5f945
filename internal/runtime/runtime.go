package runtime

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes a Runtime.
type Config struct {
	// Root holds one directory per container. It is made when missing.
	Root string
	// Sandbox is the command that starts a sandbox process; the container's
	// ID is added as the last argument. Tests put a fake here.
	Sandbox []string
	// StandIn is the command of a process that stands for a detached exec; it
	// calls StandInMain.
	StandIn []string
	// SandboxEnv is the whole environment of these processes.
	SandboxEnv []string
	// Templates is the directory of saved VMs (internal/template).
	Templates string
	// Log may be nil.
	Log *slog.Logger
}

// OwnProgram as the first word of Config.Sandbox is the calling program: both are of one build for sure.
const OwnProgram = "/proc/self/exe"

// Hidden commands of the program lucid, for Config.
const (
	SandboxCommand = "sandbox"
	StandInCommand = "exec-process"
)

// SandboxEnv is what Config.SandboxEnv is outside of tests. The Go runtime
// reads these before anything of ours runs. Until the start is over it collects
// no garbage, for that took a fifth of the start, unless there is much of it;
// package sandbox then says how little it keeps. Besides the vCPU, which sits in
// the kernel, the process has little to do at once.
func SandboxEnv() []string {
	return []string{"GOGC=off", "GOMEMLIMIT=24MiB", maxProcs(1)}
}

// maxProcs leaves one goroutine at work where all vCPUs are in the guest and the container's
// stdin is being read, a call that holds up its thread: package gomonitor wants that.
func maxProcs(vcpus int) string { return "GOMAXPROCS=" + strconv.Itoa(vcpus+2) }

// Runtime keeps containers under one root directory.
type Runtime struct {
	root      string
	sandbox   []string
	standIn   []string
	env       []string
	templates string
	log       *slog.Logger
}

// New returns a Runtime. It touches no file.
func New(cfg Config) (*Runtime, error) {
	if !filepath.IsAbs(cfg.Root) || filepath.Clean(cfg.Root) == "/" {
		return nil, errors.New("the root directory must be an absolute path other than /")
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runtime{root: filepath.Clean(cfg.Root), sandbox: cfg.Sandbox, standIn: cfg.StandIn, env: cfg.SandboxEnv, templates: cfg.Templates, log: log}, nil
}

func (r *Runtime) dir(id string) string { return filepath.Join(r.root, id) }

// Load finds a container.
func (r *Runtime) Load(id string) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	rec, err := readRecord(r.dir(id))
	if err != nil {
		return nil, err
	}
	return &Container{dir: r.dir(id), id: id, rec: *rec, log: r.log}, nil
}

// List loads all containers. onError is told of those that cannot be loaded.
func (r *Runtime) List(onError func(id string, err error)) ([]*Container, error) {
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return nil, err
	}
	var all []*Container
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c, err := r.Load(e.Name())
		if err != nil {
			// Gone since, or not yet there.
			if !errors.Is(err, ErrNotExist) {
				onError(e.Name(), err)
			}
			continue
		}
		all = append(all, c)
	}
	return all, nil
}

// Delete removes a container as `runc delete` does: a stopped one, or a
// created one, which is killed first. With force also a running one, a
// half-made one, and one that does not exist.
func (r *Runtime) Delete(id string, force bool) error { return r.delete(id, force, "") }

// Discard removes exactly this container, by force. It is no error if it is
// gone already, also if its ID is another container's by now.
func (r *Runtime) Discard(c *Container) error { return r.delete(c.id, true, c.rec.Token) }

// delete leaves a container alone whose token is not the one that is meant; an
// empty one means any.
func (r *Runtime) delete(id string, force bool, token string) error {
	if err := checkID(id); err != nil {
		return err
	}
	l, err := lock(r.dir(id))
	for try := 0; errors.Is(err, ErrNotExist); try++ {
		// There is no container, or a create that has not yet come to its
		// lock, or that was killed there: then the directory is empty.
		switch e := unix.Rmdir(r.dir(id)); {
		case errors.Is(e, unix.ENOTEMPTY), errors.Is(e, unix.EEXIST):
			// Between rmdir and lock one may have come, or the rest may have
			// gone. If not, somebody took it away.
			time.Sleep(time.Millisecond)
			if l, err = lock(r.dir(id)); try > 100 {
				l, err = newLock(r.dir(id))
			}
		case force && (e == nil || errors.Is(e, unix.ENOENT)):
			return nil
		default:
			return err
		}
	}
	if err != nil {
		return err
	}
	defer l.Close()
	rec, err := readRecord(r.dir(id))
	if err != nil {
		// Half-made: a create was killed before it could write the record. Or
		// somebody spoilt the record of one that may be running.
		if !force && alive(r.dir(id)) {
			return err
		}
		if e := r.remove(id, nil); e != nil {
			return e
		}
		if force {
			return nil
		}
		return err
	}
	if token != "" && rec.Token != token {
		return nil
	}
	if !force {
		c := &Container{dir: r.dir(id), id: id, rec: *rec, log: r.log}
		status, err := c.Status()
		if err != nil {
			return err
		}
		switch status {
		case Stopped:
			c.waitGone(stoppedGrace)
		case Created:
		default:
			return &NotStoppedError{ID: id, Status: status}
		}
	}
	return r.remove(id, rec)
}

// remove kills what is left of a container and takes its directory away.
// Precondition: the directory is locked.
func (r *Runtime) remove(id string, rec *record) error {
	if rec != nil && rec.Pod != "" {
		(&Container{dir: r.dir(id), id: id, rec: *rec, log: r.log}).leave()
	}
	if err := end(r.dir(id), rec); err != nil {
		return err
	}
	if rec != nil {
		(&Container{id: id, rec: *rec, log: r.log}).leaveScope()
		removeCgroups(rec.Cgroups)
		runPoststop(rec, r.log)
	}
	// The lock goes last: whoever waits for it finds it gone (lock). A
	// removal that is killed halfway has taken the record away or not; both
	// can be deleted again.
	dir, err := os.Open(r.dir(id))
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			if err := os.RemoveAll(filepath.Join(r.dir(id), e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(filepath.Join(r.dir(id), lockFile)); err != nil {
		return err
	}
	// Another Delete that waited for the lock may be faster here, and a Create
	// have taken the ID after that.
	err = os.Remove(r.dir(id))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ours, e1 := dir.Stat() // open, so that its inode is nobody else's
	now, e2 := os.Stat(r.dir(id))
	if e1 != nil || errors.Is(e2, os.ErrNotExist) || e2 == nil && !os.SameFile(ours, now) {
		return nil
	}
	return err
}
