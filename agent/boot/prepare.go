package boot

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/kernfile"
)

// Where things are in the agent's own file system, which no container sees.
const (
	// WorkDir is for container.Config.
	WorkDir = "/run/lucid"
	// CgroupDir is the cgroup that all containers are below.
	CgroupDir = "/run/lucid/cgroup/containers"

	cgroupMount = "/run/lucid/cgroup"
	shareMount  = "/run/lucid/share"
	shmMount    = "/run/lucid/shm"
)

// controllers are those that limits of containers need. A kernel without one
// of them is usable as long as no container has such a limit.
var controllers = []string{"+cpu", "+memory", "+pids", "+cpuset"}

// reservedTasks are what is left to the agent when a container takes all the
// tasks that it can have. Go ends a program that cannot get a thread.
const reservedTasks = 64

// restful are settings with which a kernel that has nothing to do wakes up once in some seconds and not four
// times a second: no compaction of memory before somebody needs it, for there are no huge pages, and counters of memory
// that are summed up once in 10 s.
var restful = []struct{ name, value string }{{"vm/compaction_proactiveness", "0"}, {"vm/stat_interval", "10"}}

// Prepare makes what containers need and the hello did not.
func Prepare() error {
	if err := detachRoot(); err != nil {
		return err
	}
	for _, dir := range []string{WorkDir, WorkDir + "/root", cgroupMount, shareMount} {
		if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
	}
	if err := unix.Mount("cgroup2", cgroupMount, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return os.NewSyscallError("mount cgroup2", err)
	}
	enableControllers(cgroupMount)
	if err := unix.Mkdir(CgroupDir, 0o755); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mkdir", Path: CgroupDir, Err: err}
	}
	enableControllers(CgroupDir)
	limitTasks()
	for _, s := range restful {
		_ = kernfile.Write("/proc/sys/"+s.name, s.value) // a kernel without it does not wake up for it
	}
	// Containers' processes share the agent's memory until they exec; they
	// may not look at it.
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// detachRoot makes the root a mount that pivot_root can move: the initramfs
// itself has no parent, which pivot_root(2) refuses. What is mounted so far
// comes along.
func detachRoot() error {
	if err := unix.Mount("/", "/run", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return os.NewSyscallError("bind root", err)
	}
	if err := unix.Chdir("/run"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return os.NewSyscallError("move root", err)
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

// enableControllers gives the cgroups below dir all controllers that the kernel
// has.
func enableControllers(dir string) {
	file := dir + "/cgroup.subtree_control"
	if kernfile.Write(file, strings.Join(controllers, " ")) == nil {
		return
	}
	// One that is missing fails the whole write.
	for _, c := range controllers {
		_ = kernfile.Write(file, c)
	}
}

// limitTasks keeps a fork bomb from taking the threads that the agent needs.
// The kernel has no event for "almost full", so they are set aside.
func limitTasks() {
	var buf [32]byte
	fd, err := unix.Open("/proc/sys/kernel/threads-max", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	n, err := unix.Read(fd, buf[:])
	_ = unix.Close(fd)
	if err != nil {
		return
	}
	limit := 0
	for _, c := range buf[:n] {
		if c < '0' || c > '9' {
			break
		}
		limit = limit*10 + int(c-'0')
	}
	if limit > 2*reservedTasks {
		_ = kernfile.Write(CgroupDir+"/pids.max", itoa(limit-reservedTasks))
	}
}
