//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// underSystemd is set in the environment of the test program that TestSystemd runs again.
const underSystemd = "LUCID_E2E_UNDER_SYSTEMD"

// TestSystemd: --systemd-cgroup with Debian's systemd, which is PID 1 of namespaces of its own. The program runs
// itself again in there, so that all pids are the ones that systemd sees.
func TestSystemd(t *testing.T) {
	if os.Getenv(underSystemd) == "" {
		systemdNamespaces(t, systemdV2)
		return
	}
	t.Run("Scope", systemdScope)
	t.Run("Limits", systemdLimits)
	t.Run("Killed", systemdKilled)
	t.Run("Refused", systemdRefused)
	t.Run("Bus", systemdBus)
	t.Run("User", systemdUser)
	t.Run("Docker", systemdDocker)
	t.Run("Podman", systemdPodman)
}

// TestSystemdV1 is the same on cgroup v1. It takes the controllers away from v2, so it runs last, and in a lab that has v1:
//
//	LAB_APPEND=cgroup_no_v1= go run ./test/e2e/run -where lab -run TestSystemdV1
func TestSystemdV1(t *testing.T) {
	if os.Getenv(underSystemd) == "" {
		if line, err := os.ReadFile("/proc/cmdline"); err != nil || strings.Contains(string(line), "cgroup_no_v1=all") {
			t.Fatal("this kernel does without cgroup v1: LAB_APPEND=cgroup_no_v1=")
		}
		all, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control")
		must(t, err)
		for c := range strings.FieldsSeq(string(all)) {
			must(t, os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("-"+c), 0))
		}
		// From within a cgroup namespace a hierarchy can be mounted, but not made.
		for _, options := range []string{"cpu,cpuacct", "memory", "pids", "cpuset", "freezer", "devices", "blkio", "none,name=systemd,xattr"} {
			dir := t.TempDir()
			must(t, unix.Mount("cgroup", dir, "cgroup", 0, options))
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		}
		systemdNamespaces(t, systemdV1)
		return
	}
	b := newBundle(t, "sleep", "1000")
	memory, shares, pids := int64(200<<20), uint64(512), int64(30)
	b.spec.Linux.CgroupsPath = "lucid-e2e.slice:pre:" + b.id
	b.spec.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{Shares: &shares, Cpus: "0"},
	}
	b.write()
	leave(t, "--systemd-cgroup", "run", "-d", "--bundle", b.dir, b.id)
	name, cgroup := "pre-"+b.id+".scope", "/lucid.slice/lucid-e2e.slice/pre-"+b.id+".scope"
	const most = 384<<20 + 384<<20/64 + 64<<20
	for key, want := range map[string]string{"ControlGroup": cgroup, "MemoryLimit": strconv.Itoa(most), "CPUShares": "512", "TasksMax": "542"} {
		property(t, name, key, want)
	}
	rec := readRecord(t, b.id)
	for _, f := range []struct{ controller, file, want string }{
		{"memory", "memory.limit_in_bytes", strconv.Itoa(most)},
		{"cpu,cpuacct", "cpu.shares", "512"},
		{"pids", "pids.max", "542"},
		{"cpuset", "cpuset.cpus", "0"},
		{"freezer", "cgroup.procs", strconv.Itoa(rec.Pid)},
		{"systemd", "cgroup.procs", strconv.Itoa(rec.Pid)},
	} {
		dir := "/sys/fs/cgroup/" + f.controller + cgroup
		if rec.CgroupPaths[f.controller] != dir {
			t.Errorf("state.json: %s is in %q", f.controller, rec.CgroupPaths[f.controller])
		}
		if data, err := os.ReadFile(filepath.Join(dir, f.file)); err != nil || strings.TrimSpace(string(data)) != f.want {
			t.Errorf("%s: %q, %v, want %s", f.file, data, err, f.want)
		}
	}
	lucid(t, nil, "update", "--cpu-share", "1024", b.id).wantCode(t, 0)
	property(t, name, "CPUShares", "1024")
	must(t, unix.Kill(rec.Pid, unix.SIGKILL))
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	for _, controller := range []string{"systemd", "memory", "freezer", "cpuset"} {
		wantNoScope(t, name, "/"+controller+cgroup)
	}
}

// systemdV1 and systemdV2 mount cgroups.
const (
	systemdV2 = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
	systemdV1 = `mount -t tmpfs cgroup /sys/fs/cgroup
for c in cpu,cpuacct memory pids cpuset freezer devices blkio; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c; done
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd`
)

// systemdInit becomes systemd. The only unit that it starts is a target: nothing that would set up a host.
const systemdInit = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs run /run
umount /sys/fs/cgroup
CGROUPS
mkdir -p /run/systemd/system /run/lock
printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/lucid-e2e.target
exec env container=lucid-e2e /lib/systemd/systemd --system --unit=lucid-e2e.target --log-target=console --show-status=0`

func systemdNamespaces(t *testing.T, cgroups string) {
	// tmp.conf of Debian's systemd clears /tmp at boot: not a thing to try where others work.
	if os.Getenv("LUCID_LAB") == "" {
		t.Fatal("runs in the lab only")
	}
	const cgroup = "/sys/fs/cgroup/lucid-e2e-systemd" // the root for systemd
	log, err := os.Create(filepath.Join(world.dir, "systemd.log"))
	must(t, err)
	defer log.Close()
	init := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--cgroup", "sh", "-c", strings.Replace(systemdInit, "CGROUPS", cgroups, 1))
	init.Stdout, init.Stderr = log, log
	init.SysProcAttr = inCgroup(t, cgroup)
	must(t, init.Start())
	t.Cleanup(func() {
		_ = init.Process.Kill()
		_ = init.Wait()
		// Deepest first. What is left holds the controllers, which TestSystemdV1 wants.
		out, err := exec.Command("find", cgroup, "-mindepth", "1", "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").CombinedOutput()
		if e := os.Remove(cgroup); e != nil {
			t.Errorf("%v: %v, %s", e, err, out)
		}
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("systemd:\n%s", tail(string(text)))
		}
	})
	var pid string
	waitLong(t, "systemd", 10*time.Minute, func() bool {
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", init.Process.Pid)); err != nil || strings.Contains(string(status), "\nState:\tZ") {
			t.Fatalf("it has ended: %v", err)
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", init.Process.Pid, init.Process.Pid))
		pid = strings.TrimSpace(string(children))
		if _, e := os.Stat("/proc/" + pid + "/root/run/systemd/private"); err != nil || e != nil {
			return false
		}
		time.Sleep(time.Second) // the question costs more than the answer
		return exec.Command("nsenter", "-t", pid, "-a", "systemctl", "is-active", "lucid-e2e.target").Run() == nil
	})
	// unshare has stayed in the cgroup, and one with processes hands no controllers down.
	must(t, os.WriteFile("/sys/fs/cgroup/cgroup.procs", []byte(strconv.Itoa(init.Process.Pid)), 0))
	// systemd unmounts what lies on devices that no udev has told it of, as the lab's images do; and a user has to get at the copy.
	own := filepath.Join(world.dir, "own")
	must(t, os.CopyFS(own, os.DirFS(filepath.Dir(world.bin))))
	must(t, os.Chmod(world.dir, 0o755))
	again := exec.Command("nsenter", "-t", pid, "-a", "/proc/self/exe", "-test.v", "-test.timeout=40m", "-test.run", "^"+t.Name()+"$")
	again.Args[4], err = os.Executable()
	must(t, err)
	if only := os.Getenv("LUCID_E2E_SYSTEMD_RUN"); only != "" {
		again.Args[len(again.Args)-1] += "/" + only
	}
	again.Env = append(os.Environ(), underSystemd+"=1", sharedLower+"="+world.lower, "LUCID_BIN="+filepath.Join(own, "bin"))
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = inCgroup(t, cgroup+"/test") // whoever is outside cannot be moved into a scope
	must(t, again.Run())
}

// inCgroup starts a process in a cgroup, which is made.
func inCgroup(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	must(t, os.Mkdir(dir, 0o755))
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
}

// unit asks systemd about a unit.
func unit(t *testing.T, name string, properties ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "--value", "-p", strings.Join(properties, ","), name).Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

func property(t *testing.T, name, property, want string) {
	t.Helper()
	if got := unit(t, name, property); got != want {
		t.Errorf("%s of %s is %q, want %q", property, name, got, want)
	}
}

// wantNoScope waits until systemd has forgotten a unit and its cgroup is gone.
func wantNoScope(t *testing.T, name, cgroup string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			out, _ := exec.Command("sh", "-c", "systemctl status $1; cat /sys/fs/cgroup$2/cgroup.procs", "sh", name, cgroup).CombinedOutput()
			t.Logf("%s", out)
		}
	}()
	waitFor(t, "the end of "+name, func() bool {
		_, err := os.Stat("/sys/fs/cgroup" + cgroup)
		return os.IsNotExist(err) && unit(t, name, "LoadState") == "not-found"
	})
}

// record is what of state.json the tests look at.
type record struct {
	Pid         int
	CgroupPaths map[string]string `json:"cgroup_paths"`
	Scope       struct{ Unit, Slice string }
}

func readRecord(t *testing.T, id string) (r record) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(world.state, id, "state.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &r))
	return r
}

// systemdScope: create, start, state, kill, delete.
func systemdScope(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.spec.Linux.CgroupsPath = "lucid-e2e.slice:pre:" + b.id
	b.spec.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.Documentation": "['man:lucid(1)']"}
	b.write()
	leave(t, "--systemd-cgroup", "create", "--bundle", b.dir, b.id)
	name, cgroup := "pre-"+b.id+".scope", "/lucid.slice/lucid-e2e.slice/pre-"+b.id+".scope"
	rec := readRecord(t, b.id)
	for key, want := range map[string]string{
		"ActiveState": "active", "Slice": "lucid-e2e.slice", "ControlGroup": cgroup, "Delegate": "yes", "CollectMode": "inactive-or-failed",
		"MemoryAccounting": "yes", "MemoryMax": "infinity", "TimeoutStopUSec": "7s", "Documentation": `"man:lucid(1)"`,
	} {
		property(t, name, key, want)
	}
	if got := rec.CgroupPaths[""]; got != "/sys/fs/cgroup"+cgroup {
		t.Errorf("state.json: cgroup_paths %v", rec.CgroupPaths)
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", rec.Pid)); err != nil || string(data) != "0::"+cgroup+"\n" {
		t.Errorf("the process is in %q, %v", data, err)
	}
	lucid(t, nil, "start", b.id).wantCode(t, 0)
	lucid(t, nil, "--systemd-cgroup", "kill", b.id, "KILL").wantCode(t, 0)
	wantNoScope(t, name, cgroup) // its last process has ended
	lucid(t, nil, "delete", b.id).wantCode(t, 0)

	// A process that others have put there ends with the unit.
	leave(t, "--systemd-cgroup", "run", "-d", "--bundle", b.dir, b.id)
	other := exec.Command("sleep", "1000")
	must(t, other.Start())
	must(t, os.WriteFile("/sys/fs/cgroup"+cgroup+"/cgroup.procs", []byte(strconv.Itoa(other.Process.Pid)), 0))
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	wantNoScope(t, name, cgroup)
	if err := other.Wait(); err == nil {
		t.Error("the other process has not been ended")
	}

	// Without a path: runc's default.
	b.spec.Linux.CgroupsPath, b.spec.Process.Args = "", []string{"true"}
	b.write()
	lucid(t, nil, "--cgroup-manager", "systemd", "run", "--bundle", b.dir, b.id).wantCode(t, 0)
	wantNoScope(t, "lucid-"+b.id+".scope", "/system.slice/lucid-"+b.id+".scope")
}

func systemdLimits(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	memory, swap, low := int64(200<<20), int64(300<<20), int64(20<<20)
	quota, period, shares, pids, weight := int64(80000), uint64(100000), uint64(512), int64(30), uint16(500)
	b.spec.Linux.CgroupsPath = "system.slice:lucid:" + b.id
	b.spec.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory, Swap: &swap, Reservation: &low}, Pids: &specs.LinuxPids{Limit: &pids},
		CPU:     &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares, Cpus: "0", Mems: "0"},
		BlockIO: &specs.LinuxBlockIO{Weight: &weight},
	}
	b.write()
	leave(t, "--systemd-cgroup", "run", "-d", "--bundle", b.dir, b.id)
	name, cgroup := "lucid-"+b.id+".scope", "/sys/fs/cgroup/system.slice/lucid-"+b.id+".scope/"
	const vm = 384 << 20 // 200 MiB and what a guest needs, in steps of 128 MiB
	most := vm + vm/64 + 64<<20
	for key, want := range map[string]string{
		"MemoryMax": strconv.Itoa(most), "MemoryLow": strconv.FormatInt(low, 10), "MemorySwapMax": strconv.Itoa(100 << 20),
		"CPUQuotaPerSecUSec": "800ms", "CPUQuotaPeriodUSec": "100ms", "CPUWeight": "20", "TasksMax": "542", "AllowedCPUs": "0", "AllowedMemoryNodes": "0",
	} {
		property(t, name, key, want)
	}
	file := func(name string) string {
		data, err := os.ReadFile(cgroup + name)
		must(t, err)
		return strings.TrimSpace(string(data))
	}
	for name, want := range map[string]string{
		"memory.max": strconv.Itoa(most), "pids.max": "542", "cpu.weight": "20", "cpu.max": "80000 100000", "cpuset.cpus": "0", "io.weight": "default 4950",
	} {
		if got := file(name); got != want && !(name == "io.weight" && !strings.Contains(got, "4950")) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	guest := func(name, want string) {
		t.Helper()
		r := lucid(t, nil, "exec", b.id, "cat", "/sys/fs/cgroup/"+name)
		r.wantCode(t, 0)
		r.wantStdout(t, want+"\n")
	}
	guest("pids.max", "30")
	lucid(t, nil, "update", "--memory", "500m", "--memory-swap", "-1", "--cpu-quota", "50000", "--pids-limit", "-1", "--cpu-share", "1024", b.id).wantCode(t, 0)
	most = 500<<20 + 500<<20/64 + 64<<20
	for key, want := range map[string]string{
		"MemoryMax": strconv.Itoa(most), "MemorySwapMax": "infinity", "CPUQuotaPerSecUSec": "500ms", "CPUWeight": "39", "TasksMax": "infinity", "AllowedCPUs": "0",
	} {
		property(t, name, key, want)
	}
	if got := file("memory.max"); got != strconv.Itoa(most) {
		t.Errorf("memory.max after an update: %s", got)
	}
	guest("pids.max", "max")
	guest("memory.max", strconv.Itoa(500<<20))
	r := lucid(t, nil, "update", "--cpuset-cpus", "7000", b.id)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "lucid-"+b.id+".scope")
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	wantNoScope(t, name, "/system.slice/"+name)
}

// systemdKilled: kill -9 of the sandbox process, and of create at some moments.
func systemdKilled(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.spec.Linux.CgroupsPath = "system.slice:lucid:" + b.id
	b.write()
	name, cgroup := "lucid-"+b.id+".scope", "/system.slice/lucid-"+b.id+".scope"
	leave(t, "--systemd-cgroup", "run", "-d", "--bundle", b.dir, b.id)
	must(t, unix.Kill(readRecord(t, b.id).Pid, unix.SIGKILL))
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	wantNoScope(t, name, cgroup)
	for ms := 100; ms <= 1600; ms *= 2 {
		cmd := command(t, "--log", "/dev/null", "--systemd-cgroup", "create", "--bundle", b.dir, b.id)
		must(t, cmd.Start())
		time.Sleep(time.Duration(ms) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
		wantNoScope(t, name, cgroup)
	}
}

// systemdRefused: errors, and that nothing of anybody else's is touched.
func systemdRefused(t *testing.T) {
	b := newBundle(t, "true")
	try := func(path string, want ...string) {
		t.Helper()
		b.spec.Linux.CgroupsPath = path
		b.write()
		r := lucid(t, nil, "--systemd-cgroup", "run", "--bundle", b.dir, b.id)
		r.wantCode(t, 1)
		wantContains(t, r.stderr, want...)
		if _, err := os.Stat(filepath.Join(world.state, b.id)); !os.IsNotExist(err) {
			t.Errorf("%s: something is left: %v", path, err)
		}
	}
	try("/not/slices", `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups`)
	try("nothing:x:y", "invalid slice name: nothing")
	must(t, exec.Command("systemd-run", "--scope", "--unit=lucid-taken", "--no-block", "sh", "-c", "sleep 1000 & :").Run())
	waitFor(t, "the other scope", func() bool { return unit(t, "lucid-taken.scope", "ActiveState") == "active" })
	try("system.slice:lucid:taken", "lucid-taken.scope", "already")
	property(t, "lucid-taken.scope", "ActiveState", "active")
	must(t, exec.Command("systemctl", "stop", "lucid-taken.scope").Run())
	b.spec.Annotations = map[string]string{"org.systemd.property.NoSuchThing": "true"}
	try("system.slice:lucid:x", "NoSuchThing")
	b.spec.Annotations = nil

	// No systemd: where it would be, nothing is.
	must(t, os.Rename("/run/systemd/system", "/run/systemd/elsewhere"))
	defer os.Rename("/run/systemd/elsewhere", "/run/systemd/system")
	try("system.slice:lucid:x", "systemd not running on this host, cannot use systemd cgroups manager", "leave --systemd-cgroup out")
}

// systemdBus: over the system's bus, as on a host; until here there was none, and systemd's own socket was used.
func systemdBus(t *testing.T) {
	for name, text := range map[string]string{
		"dbus.socket":  "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
		"dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n",
	} {
		must(t, os.WriteFile("/run/systemd/system/"+name, []byte(text), 0o644))
	}
	for _, args := range [][]string{{"daemon-reload"}, {"start", "dbus.service"}} {
		if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("systemctl %v: %v\n%s", args, err, out)
		}
	}
	must(t, os.Rename("/run/systemd/private", "/run/systemd/private.away"))
	defer os.Rename("/run/systemd/private.away", "/run/systemd/private")
	b := newBundle(t, "sleep", "1000")
	b.spec.Linux.CgroupsPath = "system.slice:bus:" + b.id
	b.write()
	leave(t, "--systemd-cgroup", "run", "-d", "--bundle", b.dir, b.id)
	name := "bus-" + b.id + ".scope"
	lucid(t, nil, "update", "--pids-limit", "9", b.id).wantCode(t, 0)
	property(t, name, "TasksMax", "521")
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	wantNoScope(t, name, "/system.slice/"+name)
}

// systemdUser: who is not root has the user's manager.
func systemdUser(t *testing.T) {
	const uid, gid = 5, 60 // games: systemd wants to know its users
	must(t, os.Chmod("/dev/kvm", 0o666))
	must(t, os.Chmod(world.dir, 0o755))
	program := world.lucid
	dir := fmt.Sprintf("/run/user/%d", uid)
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.Chown(dir, uid, gid))
	manager := []string{"--uid=games", "-E", "HOME=" + dir, "--unit=lucid-user-manager", "-p", "Delegate=yes", "-p", "Slice=user.slice", "-E", "XDG_RUNTIME_DIR=" + dir, "/lib/systemd/systemd", "--user"}
	must(t, exec.Command("systemd-run", manager...).Run())
	t.Cleanup(func() { _ = exec.Command("systemctl", "stop", "lucid-user-manager.service").Run() })
	as := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		return cmd
	}
	waitFor(t, "the user's manager", func() bool { return as("systemctl", "--user", "list-units").Run() == nil })

	b := newBundle(t, "cat", "/etc/hostname")
	b.spec.Linux.CgroupsPath = ":lucid:" + b.id
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
	pids := int64(30)
	b.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}
	b.spec.Process.Args = []string{"sleep", "1000"}
	b.spec.Root.Readonly = true
	b.write()
	state := filepath.Join(dir, "lucid")
	log := filepath.Join(dir, "log")
	// In a unit of that manager's: it may only move what lies below itself.
	run := as("systemd-run", "--user", "--scope", "--unit=caller", program, "--root", state, "--log", log, "--systemd-cgroup", "run", "-d", "--bundle", b.dir, b.id)
	if err := run.Run(); err != nil {
		text, _ := os.ReadFile(log)
		t.Fatalf("%v\n%s", err, text)
	}
	name := "lucid-" + b.id + ".scope"
	out, err := as("systemctl", "--user", "show", "--value", "-p", "Slice,TasksMax,ActiveState,ControlGroup", name).Output()
	must(t, err)
	if got, want := strings.Fields(string(out)), []string{"user.slice", "/user.slice/lucid-user-manager.service/user.slice/" + name, "542", "active"}; !sameWords(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if out, err := as(program, "--root", state, "delete", "--force", b.id).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	waitFor(t, "the end of the scope", func() bool {
		out, err := as("systemctl", "--user", "show", "--value", "-p", "LoadState", name).Output()
		return err == nil && strings.TrimSpace(string(out)) == "not-found"
	})
}

func sameWords(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func systemdDocker(t *testing.T) {
	d := newDocker(t, "systemd")
	id := d.must(t, "run", "-d", "--network", "none", "--memory", "200m", "--cpus", "0.5", "--pids-limit", "40", dockerImage, "sleep", "1000")
	name := "docker-" + id + ".scope"
	for key, want := range map[string]string{"Slice": "system.slice", "CPUQuotaPerSecUSec": "500ms", "TasksMax": "552", "ActiveState": "active"} {
		property(t, name, key, want)
	}
	d.must(t, "update", "--cpus", "0.7", id)
	property(t, name, "CPUQuotaPerSecUSec", "700ms")
	if s := d.must(t, "exec", id, "cat", "/sys/fs/cgroup/cpu.max"); s != "70000 100000" {
		t.Errorf("cpu.max in the guest: %s", s)
	}
	d.must(t, "rm", "-f", id)
	wantNoScope(t, name, "/system.slice/"+name)
}

func systemdPodman(t *testing.T) {
	p := newPodman(t, "systemd")
	b := newBundle(t)
	id := p.must(t, "run", "-d", "--network", "none", "--log-driver", "k8s-file", "--pids-limit", "50", "--rootfs", b.root, "sleep", "1000")
	name := "libpod-" + id + ".scope"
	property(t, name, "Slice", "machine.slice")
	property(t, name, "TasksMax", "562")
	p.run(t, nil, "exec", id, "sh", "-c", "exit 5").wantCode(t, 5)
	p.must(t, "rm", "-f", "-t", "0", id)
	wantNoScope(t, name, "/machine.slice/"+name)
}
