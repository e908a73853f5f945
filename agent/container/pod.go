package container

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/internal/wire"
)

// What containers of a pod share. The guest's own namespaces are the pod's, so
// there is nothing to do for most of them; the agent's pid namespace is no place for
// containers, so the pod has another one, made when it is first asked for.

// sharedNS is a namespace that the container's thread joins before it makes
// its own.
type sharedNS struct {
	fd   int // a pidfd of a process in it; the builder's own
	flag int // CLONE_NEW…
}

// closeShared gives up what share has opened.
func (b *builder) closeShared() {
	for _, n := range b.join {
		_ = unix.Close(n.fd)
	}
	b.join = nil
}

// share resolves the path of a namespace (wire.PodNamespace).
func (b *builder) share(n Namespace) error {
	var flag int
	switch n.Type {
	case "uts":
		flag = unix.CLONE_NEWUTS
	case "ipc":
		flag = unix.CLONE_NEWIPC
	case "network":
		flag = unix.CLONE_NEWNET
	case "pid":
		flag = unix.CLONE_NEWPID
	default:
		return invalidError("linux.namespaces: " + quote(n.Type) + " cannot be shared")
	}
	var fd int
	var err error
	id, ok := strings.CutPrefix(n.Path, wire.ContainerNamespace)
	switch {
	case ok:
		var c *Container
		if c, err = b.set.get(id); err == nil {
			fd, err = c.pidFD()
		}
	case n.Path != wire.PodNamespace:
		err = invalidError("linux.namespaces: a path leads nowhere in the guest: " + n.Path)
	case n.Type != "pid":
		return nil // the guest's own
	default:
		fd, err = b.set.podPID()
	}
	if err == nil {
		b.join = append(b.join, sharedNS{fd, flag})
	}
	return err
}

// pidFD returns a descriptor of the container's process, the caller's to close.
func (c *Container) pidFD() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleted || c.init.ended() {
		return -1, errNotRunning
	}
	return duplicate(c.init.child.PidFD)
}

func duplicate(fd int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, os.NewSyscallError("dup", err)
}

// podPID returns a descriptor of the first process of the pod's pid namespace,
// the caller's to close.
func (s *Set) podPID() (int, error) {
	s.podMu.Lock()
	defer s.podMu.Unlock()
	if s.podNS == nil {
		child, err := s.pause()
		if err != nil {
			return -1, err
		}
		s.podNS = child
	}
	return duplicate(s.podNS.PidFD)
}

// pause makes a process that is the first of a pid namespace, and only waits.
// It ignores the end of its children, so the kernel reaps them: orphans of
// the containers become its own.
func (s *Set) pause() (child *spawn.Child, err error) {
	file, err := s.cfg.Pause()
	if err != nil {
		return nil, err
	}
	reaped, err := s.cfg.Reaper.Spawn(func() (int, error) {
		child, err = spawn.Clone(spawn.Config{Flags: unix.CLONE_NEWPID, CgroupFD: -1})
		if err != nil {
			return 0, os.NewSyscallError("clone3", err)
		}
		return child.Pid, nil
	})
	if err != nil {
		return nil, err
	}
	const ignore, setSize = 1, 8 // SIG_IGN; sizeof(sigset_t)
	p := new(spawn.Program)
	// struct sigaction of the kernel: handler, flags, restorer, mask.
	p.Call("ignore SIGCHLD", unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), spawn.Data[uint64](p, ignore, 0, 0, 0), 0, setSize)
	p.Call("unshare descriptors", unix.SYS_UNSHARE, unix.CLONE_FILES)
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
	p.Call("setsid", unix.SYS_SETSID)
	p.Call("execve", unix.SYS_EXECVE, p.String(file), p.Strings([]string{"pause"}), p.Strings(nil))
	if err := child.Exec(p); err != nil {
		_ = child.Signal(unix.SIGKILL)
		<-reaped.Done
		child.Forget()
		return nil, err
	}
	return child, nil
}

// Freeze stops the processes of a container, or lets them go on.
func (s *Set) Freeze(r *wire.Freeze) error {
	c, err := s.get(r.ID)
	if err != nil {
		return err
	}
	return c.cgroup.freeze(r.Frozen)
}
