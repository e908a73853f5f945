package runtime

// The host's cgroup of a sandbox process. `docker stats` and everybody who
// watches for OOM kills find it by the process's pid. The limits of
// config.json are those of the guest, not of this cgroup, where the VM's own
// needs would count against them; but what numbers the host's devices and CPUs
// is (cgrouplimit.go). With --systemd-cgroup it is a scope's: scope.go.

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where systemd, docker and everybody else mounts cgroups.
const cgroupRoot = "/sys/fs/cgroup"

// cgroups are where a sandbox process is to be, one per hierarchy of the host.
type cgroups struct {
	v2  bool
	all []hierarchy
}

// findCgroups looks up linux.cgroupsPath and changes nothing.
func findCgroups(root, cgroupsPath string) (*cgroups, error) {
	c := &cgroups{}
	var err error
	if c.v2, err = isCgroup2(root); err != nil {
		return nil, err
	}
	c.all = []hierarchy{{mount: root}}
	if !c.v2 {
		if c.all, err = hierarchiesV1(root); err != nil {
			return nil, err
		}
	}
	for i := range c.all {
		if c.all[i].target, err = c.all[i].dir(cgroupsPath); err != nil {
			return nil, fmt.Errorf("linux.cgroupsPath: %w", err)
		}
	}
	return c, nil
}

// fresh are the directories that are not there yet: the container's own.
func (c *cgroups) fresh() []string {
	var dirs []string
	for _, h := range c.all {
		if _, err := os.Lstat(h.target); errors.Is(err, os.ErrNotExist) {
			dirs = append(dirs, h.target)
		}
	}
	return dirs
}

// paths are the directories by the names of their controllers, which is empty
// for v2: as in runc's state.json.
func (c *cgroups) paths() map[string]string {
	paths := make(map[string]string)
	for _, h := range c.all {
		paths[h.controller] = h.target
	}
	return paths
}

// cgroupsAt is what paths has told.
func cgroupsAt(paths map[string]string) *cgroups {
	c := &cgroups{}
	for controller, dir := range paths {
		c.v2 = c.v2 || controller == ""
		c.all = append(c.all, hierarchy{controller: controller, target: dir})
	}
	return c
}

// join makes the cgroups and puts a process into them.
func (c *cgroups) join(pid int) error {
	for _, h := range c.all {
		err := h.make(h.target, c.v2)
		if err == nil {
			err = os.WriteFile(filepath.Join(h.target, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
		if err != nil {
			return fmt.Errorf("linux.cgroupsPath: %w", err)
		}
	}
	return nil
}

// JoinCgroup puts a process into a cgroup of the host, which is made if it is missing. The path is one of linux.cgroupsPath.
func JoinCgroup(path string, pid int) error {
	c, err := findCgroups(cgroupRoot, path)
	if err != nil {
		return err
	}
	return c.join(pid)
}

func isCgroup2(root string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	return st.Type == unix.CGROUP2_SUPER_MAGIC, nil
}

// hierarchy is one tree of cgroups.
type hierarchy struct {
	mount      string
	controller string // as /proc/self/cgroup has it; empty for v2
	own        string // this process's cgroup, if known
	target     string // the directory of the container's cgroup
}

// hierarchiesV1 lists those of cgroup v1 that are mounted below root under
// their own names.
func hierarchiesV1(root string) ([]hierarchy, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []hierarchy
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// ID:CONTROLLERS:PATH, cgroups(7).
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 || parts[1] == "" {
			continue // the v2 tree of a hybrid host holds systemd's processes only
		}
		name := strings.TrimPrefix(parts[1], "name=")
		mount := filepath.Join(root, name)
		if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err != nil {
			continue // the kernel has it, but it is not mounted
		}
		all = append(all, hierarchy{mount: mount, controller: name, own: parts[2]})
	}
	if len(all) == 0 {
		return nil, errors.New("linux.cgroupsPath: no cgroups are mounted at " + root)
	}
	return all, nil
}

// dir is the directory of a cgroup. A path that is not absolute lies below
// this process's own.
func (h hierarchy) dir(path string) (string, error) {
	clean := filepath.Join("/", path)
	if clean == "/" {
		return "", fmt.Errorf("%q is no cgroup of its own", path)
	}
	if filepath.IsAbs(path) {
		return filepath.Join(h.mount, clean), nil
	}
	own := h.own
	if own == "" {
		data, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return "", err
		}
		own = strings.TrimSpace(strings.TrimPrefix(string(data), "0::"))
	}
	if strings.HasPrefix(own, "/..") {
		own = "/" // outside of our cgroup namespace
	}
	return filepath.Join(h.mount, own, clean), nil
}

// controllersV2 are those whose files others read.
var controllersV2 = []string{"cpuset", "cpu", "io", "memory", "pids", "hugetlb"}

// make makes a cgroup and those above it.
func (h hierarchy) make(dir string, v2 bool) error {
	rel, err := filepath.Rel(h.mount, dir)
	if err != nil {
		return err
	}
	at := h.mount
	for part := range strings.SplitSeq(rel, "/") {
		if v2 {
			// One by one: the kernel may lack some. A cgroup that holds
			// processes cannot have any, and the container runs without.
			for _, c := range controllersV2 {
				_ = os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+c), 0)
			}
		}
		up := at
		at = filepath.Join(at, part)
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if h.controller == "cpuset" {
			inheritCpuset(up, at)
		}
	}
	return nil
}

// inheritCpuset fills what is empty in a new cgroup of v1 and would keep
// processes out.
func inheritCpuset(up, dir string) {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(have)) != "" {
			continue
		}
		if want, err := os.ReadFile(filepath.Join(up, name)); err == nil {
			_ = os.WriteFile(filepath.Join(dir, name), want, 0) // joining tells
		}
	}
}

// cgroupGrace is how long a process that has ended may still count as a
// member.
const cgroupGrace = time.Second

// removeCgroups removes cgroups. One that others have put processes or
// cgroups into stays.
func removeCgroups(dirs []string) {
	for _, d := range dirs {
		for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			err := unix.Rmdir(d)
			if !errors.Is(err, unix.EBUSY) || time.Since(begin) > cgroupGrace {
				break
			}
		}
	}
}
