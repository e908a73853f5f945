package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultDevices are the nodes that the OCI runtime-spec, "Default Devices",
// asks for; Documentation/admin-guide/devices.txt has the numbers.
var defaultDevices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// devLinks are the links that runtime-linux.md, "Dev symbolic links", asks for.
var devLinks = []struct{ name, to string }{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"core", "/proc/kcore"},
	{"ptmx", "pts/ptmx"},
}

// fillDev makes the device nodes and links of /dev, unless /dev is the host's.
func (b *builder) fillDev() error {
	if b.devIsBind {
		return nil
	}
	dev, err := b.root.directory("/dev", 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dev) }()
	for _, d := range defaultDevices {
		if b.devIsFilled {
			break
		}
		if err := b.node(dev, d.name, unix.S_IFCHR|0o666, unix.Mkdev(d.major, d.minor)); err != nil {
			return err
		}
	}
	if err := b.specDevices(); err != nil {
		return err
	}
	for _, l := range devLinks {
		if b.devIsFilled {
			break
		}
		if err := unix.Symlinkat(l.to, dev, l.name); err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "symlink", Path: "/dev/" + l.name, Err: err}
		}
	}
	if b.devReadonly {
		return b.setMountReadonly("/dev")
	}
	return nil
}

func (b *builder) setMountReadonly(name string) error {
	fd, err := b.root.open(name, 0, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return setReadonly(fd)
}

// node makes a device node. One that exists and is the same device is left
// alone. A file server that makes no nodes gets one of the agent's mounted on a
// file instead.
func (b *builder) node(dir int, name string, mode uint32, device uint64) error {
	err := unix.Mknodat(dir, name, mode, int(device))
	switch err {
	case nil:
		return nil
	case unix.EEXIST:
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil &&
			st.Mode&unix.S_IFMT == mode&unix.S_IFMT && st.Rdev == device {
			return nil
		}
	case unix.EPERM, unix.EOPNOTSUPP, unix.EACCES:
	default:
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	return b.bindNode(dir, name, mode, device)
}

// bindNode mounts a node that the agent makes on a file.
func (b *builder) bindNode(dir int, name string, mode uint32, device uint64) error {
	source := path.Join(b.cfg.WorkDir, fmt.Sprintf("node-%d-%d", unix.Major(device), unix.Minor(device)))
	if err := unix.Mknod(source, mode, int(device)); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	tree, err := detached(unix.AT_FDCWD, source, 0, false)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o666)
	if err != nil {
		return &os.PathError{Op: "create", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	return attach(tree, fd)
}

// specDevices makes the nodes of linux.devices.
func (b *builder) specDevices() error {
	for i := range b.spec.Linux.Devices {
		d := &b.spec.Linux.Devices[i]
		if err := b.specDevice(d); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
	}
	return nil
}

func (b *builder) specDevice(d *Device) error {
	kinds := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	kind, ok := kinds[d.Type]
	if !ok || !path.IsAbs(d.Path) || hasNUL(d.Path) || d.Major < 0 || d.Minor < 0 {
		return invalidError("bad type, path or number")
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = *d.FileMode & 0o7777
	}
	device := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	if kind == unix.S_IFIFO {
		device = 0
	}
	dir, err := b.root.directory(path.Dir(path.Clean(d.Path)), 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	base := path.Base(path.Clean(d.Path))
	if err := b.node(dir, base, kind|mode, device); err != nil {
		return err
	}
	if d.UID == nil && d.GID == nil {
		return nil
	}
	uid, gid := -1, -1
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	return os.NewSyscallError("chown", unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
}

// console mounts the terminal's slave on /dev/console. Both ends are
// descriptors (CVE-2025-52565).
func (b *builder) console(slave int) error {
	dev, err := b.root.directory("/dev", 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dev) }()
	fd, err := unix.Openat(dev, "console", unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return invalidError("/dev/console is a symbolic link")
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: "/dev/console", Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	tree, err := detached(slave, "", unix.AT_EMPTY_PATH, false)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	return attach(tree, fd)
}

// sysctls writes linux.sysctl. The thread is in the container's namespaces,
// so those that belong to one are the container's; others are the guest's, of
// which the container has all.
func (b *builder) sysctls() error { return SetSysctls(b.spec.Linux.Sysctl) }

// SetSysctls writes files below /proc/sys, in the namespaces of the calling thread.
func SetSysctls(values map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	proc, err := unix.Open("/proc/sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/sys", Err: err}
	}
	defer func() { _ = unix.Close(proc) }()
	for key, value := range values {
		name := key
		if !strings.Contains(key, "/") {
			name = strings.ReplaceAll(key, ".", "/")
		}
		fd, err := unix.Openat2(proc, name, &unix.OpenHow{
			Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", key, err)
		}
		_, err = unix.Write(fd, []byte(value))
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", key, err)
		}
	}
	return nil
}
