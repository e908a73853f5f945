package container

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Prepare makes what the next container will need and what is the same for all,
// before there is one: in a template, so that its clones find it. A cgroup is a
// tenth of what the guest's kernel does for a container, the file systems of /dev are
// another.
func (s *Set) Prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil {
		return nil
	}
	var err error
	if s.spare, err = newCgroup(s.cfg.CgroupParent, spareName, nil); err != nil {
		return err
	}
	for _, m := range usualMounts {
		if slices.ContainsFunc(s.mounts, func(have spareMount) bool { return have.destination == m.Destination }) {
			continue
		}
		made, err := newSpareMount(filepath.Join(s.cfg.WorkDir, spareName), &m)
		if err != nil {
			return err
		}
		s.mounts = append(s.mounts, made)
	}
	return nil
}

// spareName is a cgroup's that cgroupName gives no container, and a directory's.
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

// usualMounts are those of a config.json that Docker, containerd, Podman and `lucid
// spec` have in common, as far as they depend on no namespace of the container.
var usualMounts = []Mount{
	{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
	{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
	{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
}

// spareMount is a new file system that is mounted nowhere.
type spareMount struct {
	destination, fstype, source string
	flags                       uintptr
	data                        string
	tree                        int
}

// newSpareMount makes one, by way of a directory. That of /dev has its nodes.
func newSpareMount(dir string, m *Mount) (spareMount, error) {
	o := parseMountOptions(m.Options)
	s := spareMount{destination: m.Destination, fstype: m.Type, source: m.Source, flags: o.flags, data: strings.Join(o.data, ","), tree: -1}
	if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
		return s, &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	if err := unix.Mount(s.source, dir, s.fstype, s.flags, s.data); err != nil {
		return s, os.NewSyscallError("mount", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	if m.Destination == "/dev" {
		if err := fillSpareDev(dir); err != nil {
			return s, err
		}
	}
	var err error
	s.tree, err = detached(unix.AT_FDCWD, dir, 0, false)
	return s, err
}

// fillSpareDev makes what fillDev would, and the directories of the usual mounts.
func fillSpareDev(dir string) error {
	defer unix.Umask(unix.Umask(0)) // of all threads; there is no container yet
	for _, d := range defaultDevices {
		if err := unix.Mknod(filepath.Join(dir, d.name), unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return &os.PathError{Op: "mknod", Path: d.name, Err: err}
		}
	}
	for _, l := range devLinks {
		if err := unix.Symlink(l.to, filepath.Join(dir, l.name)); err != nil {
			return &os.PathError{Op: "symlink", Path: l.name, Err: err}
		}
	}
	for _, name := range usualDirs {
		if err := unix.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
	}
	return nil
}

// takeMount returns the spare file system that is the one described, or -1. It is the
// caller's then.
func (s *Set) takeMount(want spareMount) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, have := range s.mounts {
		if want.tree = have.tree; want == have {
			s.mounts = slices.Delete(s.mounts, i, i+1)
			return have.tree
		}
	}
	return -1
}

// usualDirs are what the usual mounts in /dev are mounted on.
var usualDirs = []string{"pts", "shm", "mqueue"}

// usualDev says that a container's mounts in /dev are those on usualDirs: others may
// cover a node or a link, and without one of these its directory would be seen.
func usualDev(mounts []Mount) bool {
	n := 0
	for i := range mounts {
		dir, name := path.Split(mounts[i].Destination)
		switch {
		case dir != "/dev/":
		case !slices.Contains(usualDirs, name):
			return false
		default:
			n++
		}
	}
	return n == len(usualDirs)
}
