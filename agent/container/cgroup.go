package container

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/kernfile"
	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/spawn"
)

// cgroup is the cgroup v2 of one container.
type cgroup struct {
	dir string

	mu sync.Mutex
	fd int // protected by mu; of dir, for CLONE_INTO_CGROUP; -1 when the cgroup goes away
}

// clone makes a process in the cgroup. It and remove exclude each other: what is made is killed
// with the rest, and nothing is made afterwards.
func (g *cgroup) clone(r *reap.Reaper, flags uint64) (child *spawn.Child, reaped *reap.Process, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fd < 0 {
		return nil, nil, errExecDead
	}
	reaped, err = r.Spawn(func() (int, error) {
		child, err = spawn.Clone(spawn.Config{Flags: flags, CgroupFD: g.fd})
		if err != nil {
			return 0, os.NewSyscallError("clone3", err)
		}
		return child.Pid, nil
	})
	return child, reaped, err
}

// newCgroup makes a cgroup below parent with the limits of r.
func newCgroup(parent, name string, r *Resources) (*cgroup, error) {
	g := &cgroup{dir: filepath.Join(parent, name), fd: -1}
	if err := unix.Mkdir(g.dir, 0o755); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: g.dir, Err: err}
	}
	err := g.limit(r)
	if err == nil {
		g.fd, err = unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		_ = unix.Rmdir(g.dir)
		return nil, err
	}
	return g, nil
}

// limit writes the limits that r has.
func (g *cgroup) limit(r *Resources) error {
	if r == nil {
		return nil
	}
	files := make([][2]string, 0, 8)
	add := func(name, value string) { files = append(files, [2]string{name, value}) }
	if m := r.Memory; m != nil {
		if m.Limit != nil {
			add("memory.max", maxOr(*m.Limit))
		}
		if m.Reservation != nil {
			add("memory.low", maxOr(*m.Reservation))
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			add("cpu.weight", strconv.FormatUint(sharesToWeight(*c.Shares), 10))
		}
		if c.Quota != nil || c.Period != nil {
			add("cpu.max", cpuMax(c.Quota, c.Period))
		}
		if c.Burst != nil {
			add("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
		}
		if c.Idle != nil {
			add("cpu.idle", strconv.FormatInt(*c.Idle, 10))
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit != 0 {
		add("pids.max", maxOr(*p.Limit))
	}
	for name, value := range r.Unified {
		if name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
			return invalidError("linux.resources.unified: " + quote(name) + " is no file of a cgroup")
		}
		add(name, value)
	}
	for _, f := range files {
		if err := kernfile.Write(filepath.Join(g.dir, f[0]), f[1]); err != nil {
			return err
		}
	}
	return nil
}

// maxOr formats a limit, of which a negative one is none.
func maxOr(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// cpuMax formats cpu.max. 100 ms is the kernel's default period.
func cpuMax(quota *int64, period *uint64) string {
	q, p := "max", "100000"
	if quota != nil && *quota > 0 {
		q = strconv.FormatInt(*quota, 10)
	}
	if period != nil && *period != 0 {
		p = strconv.FormatUint(*period, 10)
	}
	return q + " " + p
}

// sharesToWeight maps cgroup v1's 2..262144 to v2's 1..10000, as the OCI
// runtime-spec's config-linux.md and crun do.
func sharesToWeight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

// maxKernelFile bounds what is read of a file of the kernel.
const maxKernelFile = 1 << 20

// readFile reads a file of the kernel, or of the image, up to a limit.
func readFile(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 0, 4096)
	for len(buf) < maxKernelFile {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			break
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}

// read returns a file of the cgroup; empty if it is missing.
func (g *cgroup) read(name string) string {
	b, err := readFile(unix.AT_FDCWD, filepath.Join(g.dir, name))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// number reads a file that holds one number; 0 for "max".
func (g *cgroup) number(name string) uint64 {
	n, err := strconv.ParseUint(g.read(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// fields reads a file of lines "name number".
func (g *cgroup) fields(name string) map[string]uint64 {
	m := make(map[string]uint64)
	for line := range strings.Lines(g.read(name)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			m[k] = n
		}
	}
	return m
}

// pids lists the processes in the cgroup and below it.
func (g *cgroup) pids() ([]int, error) {
	var list []int
	err := filepath.WalkDir(g.dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := readFile(unix.AT_FDCWD, filepath.Join(p, "cgroup.procs"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				list = append(list, n)
			}
		}
		return nil
	})
	return list, err
}

// kill sends SIGKILL to all processes in the cgroup.
func (g *cgroup) kill() error { return kernfile.Write(filepath.Join(g.dir, "cgroup.kill"), "1") }

// freeze stops the processes in the cgroup, or lets them go on. It returns when
// the kernel says that it has.
func (g *cgroup) freeze(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := kernfile.Write(filepath.Join(g.dir, "cgroup.freeze"), value); err != nil {
		return err
	}
	events, err := unix.Open(filepath.Join(g.dir, "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: g.dir, Err: err}
	}
	defer func() { _ = unix.Close(events) }()
	for range removeWaits {
		var line [128]byte
		n, _ := unix.Pread(events, line[:], 0)
		if bytes.Contains(line[:max(n, 0)], []byte("frozen "+value)) {
			return nil
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events), Events: unix.POLLPRI}}, removeWaitMS)
	}
	return errors.New("the processes do not freeze")
}

// removeWaits bounds the waits for a cgroup to become empty, of
// removeWaitMS milliseconds each; each is ended by the kernel's notice.
const (
	removeWaits  = 20
	removeWaitMS = 500
)

// remove kills what is in the cgroup, waits until it is gone, and removes the
// cgroup with those that the container made below it.
func (g *cgroup) remove() error {
	g.mu.Lock()
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
		g.fd = -1
	}
	g.mu.Unlock()
	events, err := unix.Open(filepath.Join(g.dir, "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &os.PathError{Op: "open", Path: g.dir, Err: err}
	}
	defer func() { _ = unix.Close(events) }()
	for range removeWaits {
		if err = g.removeTree(); !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := g.kill(); err != nil {
			return err
		}
		// cgroup-v2.rst: a change of populated is a POLLPRI event since
		// the last read.
		var line [128]byte
		n, _ := unix.Pread(events, line[:], 0)
		if bytes.Contains(line[:max(n, 0)], []byte("populated 0")) {
			continue
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events), Events: unix.POLLPRI}}, removeWaitMS)
	}
	return err
}

// removeTree removes the cgroup, deepest directories first.
func (g *cgroup) removeTree() error {
	err := unix.Rmdir(g.dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	var dirs []string
	_ = filepath.WalkDir(g.dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := unix.Rmdir(dirs[i]); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "rmdir", Path: dirs[i], Err: err}
		}
	}
	return nil
}
