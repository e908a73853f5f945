package container

// Prepare makes what the next container will need and what is the same for all,
// before there is one: in a template, so that its clones find it. A cgroup is a
// tenth of what the guest's kernel does for a container.
func (s *Set) Prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil {
		return nil
	}
	var err error
	s.spare, err = newCgroup(s.cfg.CgroupParent, spareName, nil)
	return err
}

// spareName is a cgroup's that cgroupName gives no container.
const spareName = "spare"

// takeCgroup returns a cgroup with the limits of r: the spare one, if there is one.
func (s *Set) takeCgroup(name string, r *Resources) (*cgroup, error) {
	s.mu.Lock()
	g := s.spare
	s.spare = nil
	s.mu.Unlock()
	if g == nil {
		return newCgroup(s.cfg.CgroupParent, name, r)
	}
	if err := g.limit(r); err != nil {
		_ = g.remove()
		return nil, err
	}
	return g, nil
}
