package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
)

// mounts makes the mounts of the spec, in their order.
func (b *builder) mounts() error {
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		if err := b.mount(m, b.exports[i]); err != nil {
			return fmt.Errorf("mount %q at %q: %w", m.Type, m.Destination, err)
		}
	}
	return nil
}

// mount makes one mount. export is the name of the host's export; empty if the
// mount is the guest's own.
func (b *builder) mount(m *Mount, export string) error {
	o := parseMountOptions(m.Options)
	if err := checkProcTarget(m, o.bind || export != ""); err != nil {
		return err
	}
	if export != "" || o.bind || m.Type == "bind" {
		return b.bindMount(m, export, &o)
	}
	target, err := b.mountPoint(m)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	flags, data := o.flags, strings.Join(o.data, ",")
	switch m.Type {
	case "proc":
		return b.mountInChild("proc", target, "proc", flags, data)
	case "cgroup", "cgroup2":
		// The guest has v2 only; v1's options mean nothing to it.
		return b.mountInChild("cgroup", target, "cgroup2", flags, "")
	case "sysfs", "mqueue":
		data = ""
	case "tmpfs":
		if m.Destination == "/dev" && flags&unix.MS_RDONLY != 0 {
			b.devReadonly = true // once it is filled
			flags &^= unix.MS_RDONLY
		}
	case "devpts", "ramfs", "overlay", "debugfs", "tracefs", "securityfs", "hugetlbfs", "bpf", "binfmt_misc":
	default:
		return invalidError("file system type is not for a guest")
	}
	source := m.Source
	if source == "" {
		source = m.Type
	}
	if err := b.newFileSystem(target, spareMount{m.Destination, m.Type, source, flags, data, 0}); err != nil {
		return err
	}
	if m.Type == "devpts" && m.Destination == "/dev/pts" {
		if b.devpts, err = b.root.open("/dev/pts", unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS); err != nil {
			return err
		}
	}
	return b.propagate(m.Destination, &o)
}

// newFileSystem mounts one on target: the spare one, if there is one like it.
func (b *builder) newFileSystem(target int, want spareMount) error {
	tree := -1
	if dev := want.destination == "/dev"; !dev || usualDev(b.spec.Mounts) {
		tree = b.set.takeMount(want)
		b.devIsFilled = b.devIsFilled || dev && tree >= 0
	}
	if tree < 0 {
		return os.NewSyscallError("mount", unix.Mount(want.source, fdPath(target), want.fstype, want.flags, want.data))
	}
	defer func() { _ = unix.Close(tree) }()
	return attach(tree, target)
}

// mountPoint opens the directory to mount on. What the kernel's own file
// systems are mounted on may not be reached through a link of the image: the
// paths that are masked below it must be the ones that programs see (runc
// CVE-2019-19921, CVE-2023-27561).
func (b *builder) mountPoint(m *Mount) (int, error) {
	resolve := uint64(0)
	if m.Type == "proc" || m.Type == "sysfs" {
		resolve = unix.RESOLVE_NO_SYMLINKS
	}
	return b.root.directory(m.Destination, resolve)
}

// mountInChild mounts a file system that shows the namespaces of the one who
// mounts it. The child has the descriptors of the agent, so the path leads it
// to the same place.
func (b *builder) mountInChild(source string, target int, fstype string, flags uintptr, data string) error {
	p := new(spawn.Program)
	p.Call("mount "+fstype, unix.SYS_MOUNT, p.String(source), p.String(fdPath(target)),
		p.String(fstype), flags, p.String(data))
	return b.child.Run(p)
}

// bindMount mounts an export of the host, or a place of the container's own
// root, somewhere else.
func (b *builder) bindMount(m *Mount, export string, o *mountOptions) error {
	tree, err := b.bindSource(m, export, o)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	if a := o.attr(); a != nil {
		flags := uint(unix.AT_EMPTY_PATH)
		if o.attrRec != 0 {
			flags |= unix.AT_RECURSIVE
		}
		if err := unix.MountSetattr(tree, "", flags, a); err != nil {
			return os.NewSyscallError("mount_setattr", err)
		}
	}
	dir, err := isDir(tree)
	if err != nil {
		return err
	}
	var target int
	if dir {
		target, err = b.root.directory(m.Destination, 0)
	} else {
		target, err = b.root.file(m.Destination)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	if err := attach(tree, target); err != nil {
		return err
	}
	if m.Destination == "/dev" {
		b.devIsBind = true
	}
	return b.propagate(m.Destination, o)
}

// bindSource returns a detached copy of what is to be mounted.
func (b *builder) bindSource(m *Mount, export string, o *mountOptions) (int, error) {
	if export != "" {
		path, err := b.cfg.Exports.Path(export)
		if err != nil {
			return -1, err
		}
		return detached(unix.AT_FDCWD, path, 0, true)
	}
	fd, err := b.root.open(m.Source, 0, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fd) }()
	return detached(fd, "", unix.AT_EMPTY_PATH, o.recursive)
}

// detached returns a copy of a mount that is nowhere yet.
func detached(dir int, path string, flags uint, recursive bool) (int, error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return fd, nil
}

// attach puts a detached mount on target.
func attach(tree, target int) error {
	return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", target, "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// propagate sets the propagation of what is mounted on destination. All mounts
// of a container are private to begin with.
func (b *builder) propagate(destination string, o *mountOptions) error {
	if o.propagation == 0 || o.propagation == unix.MS_PRIVATE {
		return nil
	}
	fd, err := b.root.open(destination, 0, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	flags := uint(unix.AT_EMPTY_PATH)
	if o.propRec {
		flags |= unix.AT_RECURSIVE
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, "", flags,
		&unix.MountAttr{Propagation: o.propagation}))
}

// procFiles may be covered one by one, by lxcfs and its kind.
var procFiles = []string{
	"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg",
	"slabinfo", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
}

// checkProcTarget refuses mounts that would replace /proc or something in it
// that security relies on, as runc does.
func checkProcTarget(m *Mount, bind bool) error {
	rest, inside := strings.CutPrefix(m.Destination, "/proc/")
	switch {
	case m.Destination == "/proc" && (bind || m.Type != "proc"):
		return invalidError("only a procfs may be mounted at /proc")
	case !inside:
		return nil
	}
	for _, name := range procFiles {
		if rest == name {
			return nil
		}
	}
	return invalidError("inside /proc")
}

// maskPaths hides the maskedPaths: directories under an empty one, files under
// /dev/null.
func (b *builder) maskPaths() error {
	for _, name := range b.spec.Linux.MaskedPaths {
		fd, err := b.root.open(name, 0, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return err
		}
		err = b.mask(fd)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("mask %s: %w", name, err)
		}
	}
	return nil
}

func (b *builder) mask(fd int) error {
	dir, err := isDir(fd)
	if err != nil {
		return err
	}
	if dir {
		return os.NewSyscallError("mount", unix.Mount("tmpfs", fdPath(fd), "tmpfs",
			unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	}
	// The agent's /dev/null, which no image can exchange (CVE-2025-31133).
	tree, err := detached(unix.AT_FDCWD, "/dev/null", 0, false)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	return attach(tree, fd)
}

// readonlyPaths makes the readonlyPaths read-only, each by a mount on itself.
func (b *builder) readonlyPaths() error {
	for _, name := range b.spec.Linux.ReadonlyPaths {
		fd, err := b.root.open(name, 0, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return err
		}
		err = readonlyPath(fd)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", name, err)
		}
	}
	return nil
}

func readonlyPath(fd int) error {
	tree, err := detached(fd, "", unix.AT_EMPTY_PATH, true)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	if err := setReadonly(tree); err != nil {
		return err
	}
	return attach(tree, fd)
}

// setReadonly makes the mount that fd is on read-only.
func setReadonly(fd int) error {
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
}
