package container

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/agent/stdio"
	"github.com/lucid-containers/lucid/internal/wire"
)

// builder makes one container, on one thread.
type builder struct {
	set     *Set
	cfg     *Config
	spec    *Spec
	exports map[int]string // by index in spec.Mounts
	rootfs  string         // export
	io      wire.IO

	newPID, newCgroup, newNet bool
	unshare                   int
	join                      []sharedNS
	around                    surroundings

	root        rootDir
	cgroup      *cgroup
	child       *spawn.Child
	reaped      *reap.Process
	devpts      int // top directory of the container's devpts, or -1
	devIsBind   bool
	devIsFilled bool // with the nodes and links that each has
	devReadonly bool
	stdio       *stdio.Stdio
	file        string // the program that Start runs
	state       []byte // what the hooks read, but for the pid
	warnings    []string
}

// Create makes a container. after must be called when the reply is on its way:
// from then on its exit can be reported.
func (s *Set) Create(r *wire.CreateContainer) (created *wire.Created, after func(), err error) {
	if err := checkSpec(&r.Spec); err != nil {
		return nil, nil, err
	}
	b := &builder{
		set: s, cfg: &s.cfg, spec: &r.Spec, exports: r.MountExports, rootfs: r.Rootfs, io: r.IO,
		root: -1, devpts: -1, unshare: unix.CLONE_NEWNS,
		around: surroundings{filter: r.Seccomp},
	}
	if err := checkFilter(r.Seccomp); err != nil {
		return nil, nil, err
	}
	defer b.closeShared()
	if err := b.namespaces(); err != nil {
		return nil, nil, err
	}
	b.state = r.State
	if err := s.reserve(r.ID); err != nil {
		return nil, nil, err
	}
	c, err := b.create(r.ID)
	s.put(r.ID, c)
	if err != nil {
		return nil, nil, err
	}
	return &wire.Created{Pid: c.init.child.Pid, Warnings: b.warnings}, func() { go c.RoutineWait(c.init) }, nil
}

func (b *builder) create(id string) (c *Container, err error) {
	// The file server is mounted in the agent's namespace, for all.
	rootfs, err := b.cfg.Exports.Path(b.rootfs)
	if err != nil {
		return nil, err
	}
	for _, export := range b.exports {
		if _, err := b.cfg.Exports.Path(export); err != nil {
			return nil, err
		}
	}
	b.cgroup, err = b.set.takeCgroup(cgroupName(id), b.spec.Linux.Resources)
	if err != nil {
		return nil, err
	}
	if err := onThread(func() error { return b.build(rootfs) }); err != nil {
		b.abandon()
		return nil, err
	}
	hooks, err := b.hooks()
	if err != nil {
		b.abandon()
		return nil, err
	}
	c = &Container{
		id: id, cfg: b.cfg, cgroup: b.cgroup, devpts: b.devpts, hooks: hooks,
		init:  newProcess("", b.child, b.reaped, b.stdio),
		start: execProgram(b.spec.Process, b.file, b.around.filter), around: b.around,
		execs: make(map[string]*process),
	}
	b.set.oom.add(c) // before anything of the container runs
	return c, nil
}

// cgroupName turns an id into a directory name that no other id has.
func cgroupName(id string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	name := []byte("c-")
	for i := range len(id) {
		ok := false
		for j := range len(plain) {
			ok = ok || plain[j] == id[i]
		}
		if ok {
			name = append(name, id[i])
		} else {
			name = append(append(name, '%'), strconv.FormatUint(uint64(id[i])+0x100, 16)[1:]...)
		}
	}
	return string(name)
}

// onThread runs f on a thread that ends with it, whatever namespaces, root
// directory or umask f leaves it in. It is not the main thread, which does not
// end: what a container has left there would stay for the life of the VM.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- onThread(f) // held here, the main thread runs nothing else
			return
		}
		result <- f()
	}()
	return <-result
}

// abandon undoes what was made of a container.
func (b *builder) abandon() {
	if b.child != nil {
		_ = b.child.Signal(unix.SIGKILL)
		<-b.reaped.Done
		b.child.Forget()
	}
	if b.stdio != nil {
		b.stdio.CloseChild()
		b.stdio.Close()
	}
	for _, fd := range []int{b.devpts, int(b.root)} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	_ = b.cgroup.remove()
}

// build runs on the container's thread.
func (b *builder) build(rootfs string) error {
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"enter namespaces", b.enter},
		{"mount the root", func() error { return b.mountRoot(rootfs) }},
		{"make the first process", b.clone},
		{"set up namespaces", b.inNamespaces},
		{"", b.mounts},
		{"fill /dev", b.fillDev},
		{"set up stdio", b.openStdio},
		{"", b.sysctls},
		{"", b.maskPaths},
		{"", b.readonlyPaths},
		{"make the working directory", b.makeCwd},
		{"", b.limit},
		{"enter the user namespace", b.enterUser},
		{"pivot", b.pivot},
		{"set the root's propagation", b.rootPropagation},
		{"", b.program},
	} {
		if err := step.do(); err != nil {
			if step.what == "" {
				return err
			}
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func (b *builder) mountRoot(rootfs string) error {
	tree, err := detached(unix.AT_FDCWD, rootfs, 0, true)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	dir := filepath.Join(b.cfg.WorkDir, "root")
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	b.root = rootDir(fd)
	return os.NewSyscallError("open", err)
}

// clone makes the first process: from here on it waits for orders.
func (b *builder) clone() (err error) {
	flags := uint64(0)
	if b.newPID {
		flags |= unix.CLONE_NEWPID
	}
	b.child, b.reaped, err = b.cgroup.clone(b.cfg.Reaper, flags)
	return err
}

// openStdio makes the descriptors of the process, while the agent's /dev/null
// can still be seen.
func (b *builder) openStdio() error {
	pty, err := openTerminal(b.spec.Process, b.devpts)
	if err != nil {
		return err
	}
	if pty != nil {
		if err := b.console(pty.Slave()); err != nil {
			pty.Close()
			return err
		}
	}
	b.stdio, err = stdio.Open(stdio.Config{Opener: b.cfg.Opener, IO: b.io, PTY: pty})
	return err
}

// openTerminal makes the terminal of a process; nil if it has none.
func openTerminal(p *Process, devpts int) (*stdio.PTY, error) {
	if !p.Terminal {
		return nil, nil
	}
	if devpts < 0 {
		return nil, invalidError("process.terminal: the container has no devpts mount at /dev/pts")
	}
	var box Box
	if p.ConsoleSize != nil {
		box = *p.ConsoleSize
	}
	return stdio.OpenPTY(devpts, int(p.User.UID), box.Width, box.Height)
}

func (b *builder) makeCwd() error {
	fd, err := b.root.directory(b.spec.Process.Cwd, 0)
	if err != nil {
		return err
	}
	_ = unix.Close(fd)
	return nil
}

// pivot makes the container's root the root of the thread and of the child,
// and takes the agent's file system out of sight.
func (b *builder) pivot() error {
	if b.spec.Root != nil && b.spec.Root.Readonly {
		if err := setReadonly(int(b.root)); err != nil {
			return err
		}
	}
	if err := unix.Fchdir(int(b.root)); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	_ = unix.Close(int(b.root))
	b.root = -1
	// Both directories the same: the old root is then mounted on the new
	// one, see pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// program finds the program and makes the child the process that will run it.
func (b *builder) program() error {
	p := b.spec.Process
	if err := unix.Chdir(p.Cwd); err != nil {
		return &os.PathError{Op: "chdir", Path: p.Cwd, Err: err}
	}
	var err error
	if b.file, err = lookPath(p); err != nil {
		return err
	}
	addHome(p)
	return b.finish(p)
}

func (b *builder) finish(p *Process) error {
	if b.around.newUser {
		// What its root may mount, and name.
		own := new(spawn.Program)
		own.Call("unshare mount and uts namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS|unix.CLONE_NEWUTS)
		if err := b.child.Run(own); err != nil {
			return err
		}
	}
	prog, warnings := finish(p, b.stdio.Child, &b.around)
	b.warnings = append(b.warnings, warnings...)
	if err := b.child.Run(prog); err != nil {
		return err
	}
	b.stdio.CloseChild()
	b.stdio.Start()
	return nil
}

// Update changes the limits of a container.
func (s *Set) Update(r *wire.Update) error {
	c, err := s.get(r.ID)
	if err != nil {
		return err
	}
	return c.cgroup.limit(&r.Resources)
}
