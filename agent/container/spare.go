package container

import (
	"os"

	"golang.org/x/sys/unix"
)

// spare is what every container needs and what is the same for all, made before
// there is one: in a template, so that its clones find it. A cgroup and a network
// namespace are a third of what the guest's kernel does for a container.
type spare struct {
	cgroup *cgroup // nil: none
	net    int     // a network namespace whose lo is up; -1: none
}

// spareName is a cgroup's that cgroupName gives no container.
const spareName = "spare"

// Prepare makes what the next container will need.
func (s *Set) Prepare() error {
	have := s.takeSpare()
	if have.cgroup == nil {
		g, err := newCgroup(s.cfg.CgroupParent, spareName, nil)
		if err != nil {
			return err
		}
		have.cgroup = g
	}
	if have.net < 0 {
		err := onThread(func() (err error) {
			have.net, err = newNet()
			return err
		})
		if err != nil {
			_ = have.cgroup.remove()
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = have
	return nil
}

// newNet gives the calling thread a network namespace and returns its descriptor.
func newNet() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, os.NewSyscallError("unshare", err)
	}
	if err := LoopbackUp(); err != nil {
		return -1, err
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return fd, os.NewSyscallError("open /proc/thread-self/ns/net", err)
}

// takeSpare returns what there is, which is the caller's then.
func (s *Set) takeSpare() spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.spare
	s.spare = spare{net: -1}
	return have
}

// close frees what nobody took.
func (p *spare) close() {
	if p.cgroup != nil {
		_ = p.cgroup.remove()
		p.cgroup = nil
	}
	if p.net >= 0 {
		_ = unix.Close(p.net)
		p.net = -1
	}
}

// takeCgroup returns the container's cgroup, with its limits.
func (p *spare) takeCgroup(parent, name string, r *Resources) (*cgroup, error) {
	g := p.cgroup
	if g == nil {
		return newCgroup(parent, name, r)
	}
	if err := g.limit(r); err != nil {
		return nil, err // close removes it
	}
	p.cgroup = nil
	return g, nil
}

// takeNet puts the calling thread into the namespace, if there is one.
func (p *spare) takeNet() (bool, error) {
	if p.net < 0 {
		return false, nil
	}
	if err := unix.Setns(p.net, unix.CLONE_NEWNET); err != nil {
		return false, os.NewSyscallError("setns", err)
	}
	return true, nil
}
