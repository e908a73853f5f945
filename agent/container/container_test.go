package container_test

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/internal/wire"
)

func TestRunEcho(t *testing.T) {
	g := newGuest(t)
	out, errs, status := g.run(spec("prog", "echo", "hello"), nil)
	if out != "hello\n" || errs != "" || status != 0 {
		t.Errorf("%q, %q, %d", out, errs, status)
	}
}

func TestExitStatus(t *testing.T) {
	g := newGuest(t)
	if _, _, status := g.run(spec("prog", "exit", "7"), nil); status != 7 {
		t.Errorf("status %d", status)
	}
}

func TestIdentity(t *testing.T) {
	g := newGuest(t)
	if err := os.WriteFile(filepath.Join(g.rootfs, "etc/passwd"),
		[]byte("root:x:0:0:root:/root:/bin/sh\n1000:x:5:5::/wrong:\nme:x:1000:1000::/home/me:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := spec("prog", "id")
	s["process"].(m)["user"] = m{"uid": 1000, "gid": 1001, "additionalGids": []int{7, 8}}
	s["process"].(m)["cwd"] = "/made/for/me"
	out, errs, status := g.run(s, nil)
	if out != "1000 1001 [7 8] 1 box /made/for/me\n" || status != 0 {
		t.Errorf("%q, %q, %d", out, errs, status)
	}
	s["process"].(m)["args"] = []string{"/bin/prog", "env"}
	out, _, _ = g.run(s, nil)
	if out != "A=b\nHOME=/home/me\nPATH=/sbin:/bin\n" {
		t.Errorf("environment %q", out)
	}
}

var capLine = regexp.MustCompile(`(?m)^(Cap\w+|NoNewPrivs|Seccomp):\s*(.*?) *$`)

func status(t *testing.T, s m) map[string]string {
	t.Helper()
	out, errs, code := newGuest(t).run(s, nil)
	if code != 0 {
		t.Fatalf("%d: %s", code, errs)
	}
	got := map[string]string{}
	for _, l := range capLine.FindAllStringSubmatch(out, -1) {
		got[l[1]] = l[2]
	}
	return got
}

func TestCapabilities(t *testing.T) {
	// CHOWN 0, DAC_OVERRIDE 1, KILL 5, SETGID 6, SETUID 7, NET_BIND_SERVICE 10.
	const docker = "00000000000004e3"
	const none = "0000000000000000"
	s := spec("prog", "cat", "/proc/self/status")
	got := status(t, s)
	for name, want := range map[string]string{
		"CapInh": none, "CapPrm": docker, "CapEff": docker, "CapBnd": docker, "CapAmb": none, "NoNewPrivs": "0",
	} {
		if got[name] != want {
			t.Errorf("root: %s is %s, want %s", name, got[name], want)
		}
	}
	s["process"].(m)["user"] = m{"uid": 1000, "gid": 1000}
	s["process"].(m)["noNewPrivileges"] = true
	got = status(t, s)
	for name, want := range map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": docker, "CapAmb": none, "NoNewPrivs": "1",
	} {
		if got[name] != want {
			t.Errorf("user: %s is %s, want %s", name, got[name], want)
		}
	}
	one := []string{"CAP_NET_BIND_SERVICE"}
	s["process"].(m)["capabilities"] = m{"bounding": one, "effective": one, "permitted": one, "inheritable": one, "ambient": one}
	got = status(t, s)
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if got[name] != "0000000000000400" {
			t.Errorf("ambient: %s is %s", name, got[name])
		}
	}
	delete(s["process"].(m), "capabilities")
	if got = status(t, s); got["CapBnd"] != none {
		t.Errorf("no capabilities: CapBnd is %s", got["CapBnd"])
	}
}

func TestUnknownCapabilityWarns(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "exit", "0")
	s["process"].(m)["capabilities"] = m{"bounding": []string{"CAP_FLY"}}
	c, err := g.create("c", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "CAP_FLY") {
		t.Errorf("warnings %q", c.Warnings)
	}
	if err := g.set.Delete(&wire.DeleteContainer{ID: "c"}); err != nil {
		t.Error(err)
	}
	if e := g.waitExit(); e.Status != 137 {
		t.Errorf("status %d", e.Status)
	}
}

func TestRlimitsAndUmask(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "rlimit", "4") // RLIMIT_CORE
	s["process"].(m)["rlimits"] = []m{{"type": "RLIMIT_CORE", "soft": 123, "hard": 456}}
	if out, _, _ := g.run(s, nil); out != "123 456\n" {
		t.Errorf("core %q", out)
	}
	s = spec("prog", "cat", "/proc/self/limits")
	if out, _, _ := g.run(s, nil); !regexp.MustCompile(`Max open files +\d+ +2048 `).MatchString(out) {
		t.Errorf("limits %q", out)
	}
	if out, _, _ := g.run(spec("prog", "umask"), nil); out != "022\n" {
		t.Errorf("umask %q", out)
	}
	s = spec("prog", "umask")
	s["process"].(m)["user"] = m{"umask": 0o77}
	if out, _, _ := g.run(s, nil); out != "077\n" {
		t.Errorf("umask %q", out)
	}
}

// The namespaces are new, and /proc and the cgroup file system show them.
func TestNamespaces(t *testing.T) {
	g := newGuest(t)
	if out, _, _ := g.run(spec("prog", "ls", "/proc"), nil); !strings.Contains(out, "\nself ") ||
		regexp.MustCompile(`(?m)^\d\d+ `).MatchString(out) || !regexp.MustCompile(`(?m)^1 `).MatchString(out) {
		t.Errorf("processes:\n%s", out)
	}
	if out, _, _ := g.run(spec("prog", "cat", "/proc/self/cgroup"), nil); !strings.Contains(out, "0::/\n") {
		t.Errorf("cgroup %q", out)
	}
	if out, _, _ := g.run(spec("prog", "cat", "/sys/fs/cgroup/cgroup.procs"), nil); out != "1\n" {
		t.Errorf("cgroup.procs %q", out)
	}
	if out, _, _ := g.run(spec("prog", "ls", "/sys/class/net"), nil); !strings.HasPrefix(out, "lo ") {
		t.Errorf("interfaces %q", out)
	}
	if out, _, _ := g.run(spec("prog", "cat", "/proc/self/mountinfo"), nil); strings.Count(out, " / / ") > 1 ||
		strings.Contains(out, "lucid-agent-test-") && strings.Count(out, "\n") > 14 {
		t.Errorf("mounts of the agent are left:\n%s", out)
	}
}

func TestDevices(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "stat", "/dev/null", "/dev/urandom", "/dev/fd", "/dev/ptmx", "/dev/fuse")
	s["linux"].(m)["devices"] = []m{{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 7}}
	out, _, _ := g.run(s, nil)
	want := "/dev/null 20666 1:3 0\n/dev/urandom 20666 1:9 0\n/dev/fd 120777 0:0 0\n/dev/ptmx 120777 0:0 0\n/dev/fuse 20600 10:229 7\n"
	if out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if out, errs, _ := g.run(spec("prog", "write", "/dev/stdout", "again"), nil); out != "again" {
		t.Errorf("/dev/stdout: %q, %q", out, errs)
	}
}

func TestPathsAreMaskedAndReadonly(t *testing.T) {
	g := newGuest(t)
	if out, errs, code := g.run(spec("prog", "cat", "/proc/timer_list"), nil); out != "" || code != 0 {
		t.Errorf("timer_list: %d bytes, %q, %d", len(out), errs, code)
	}
	if out, errs, code := g.run(spec("prog", "ls", "/sys/firmware"), nil); out != "" || code != 0 {
		t.Errorf("firmware: %q, %q, %d", out, errs, code)
	}
	if _, errs, _ := g.run(spec("prog", "write", "/proc/sys/kernel/hostname", "x"), nil); !strings.Contains(errs, "read-only") {
		t.Errorf("/proc/sys: %q", errs)
	}
	if _, errs, _ := g.run(spec("prog", "write", "/sys/x", "x"), nil); errs == "" {
		t.Error("/sys is writable")
	}
	if _, errs, _ := g.run(spec("prog", "write", "/file", "x"), nil); errs != "" {
		t.Errorf("the root is not writable: %s", errs)
	}
	s := spec("prog", "write", "/file", "x")
	s["root"] = m{"readonly": true}
	if _, errs, _ := g.run(s, nil); !strings.Contains(errs, "read-only") {
		t.Errorf("read-only root: %q", errs)
	}
}

func TestSysctl(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "cat", "/proc/sys/kernel/shmmni")
	s["linux"].(m)["sysctl"] = m{"kernel.shmmni": "77"}
	if out, errs, _ := g.run(s, nil); out != "77\n" {
		t.Errorf("%q, %q", out, errs)
	}
	s["linux"].(m)["sysctl"] = m{"kernel/../../../etc/passwd": "x"}
	if _, err := g.create("c", s, nil); err == nil {
		t.Error("a sysctl outside /proc/sys was written")
	}
}

func TestBindMounts(t *testing.T) {
	g := newGuest(t)
	vol := t.TempDir()
	if err := os.WriteFile(filepath.Join(vol, "data"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	g.exports["vol"] = vol
	g.exports["file"] = filepath.Join(vol, "data")
	s := spec("prog", "cat", "/mnt/deep/data", "/etc/one")
	mounts := s["mounts"].([]m)
	n := len(mounts)
	s["mounts"] = append(mounts,
		m{"destination": "/mnt/deep", "type": "bind", "source": "/x", "options": []string{"rbind", "ro", "rprivate"}},
		m{"destination": "/etc/one", "type": "bind", "source": "/y", "options": []string{"bind", "nosuid"}},
		m{"destination": "/mnt/rw", "type": "bind", "source": "/x", "options": []string{"rbind", "rw"}})
	exports := map[int]string{n: "vol", n + 1: "file", n + 2: "vol"}
	if out, errs, _ := g.run(s, exports); out != "of the hostof the host" {
		t.Errorf("%q, %q", out, errs)
	}
	s["process"].(m)["args"] = []string{"prog", "write", "/mnt/deep/new", "x"}
	if _, errs, _ := g.run(s, exports); !strings.Contains(errs, "read-only") {
		t.Errorf("read-only bind: %q", errs)
	}
	s["process"].(m)["args"] = []string{"prog", "write", "/mnt/rw/new", "x"}
	if _, errs, _ := g.run(s, exports); errs != "" {
		t.Errorf("bind: %q", errs)
	}
	if b, err := os.ReadFile(filepath.Join(vol, "new")); string(b) != "x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestStdinAndEOF(t *testing.T) {
	g := newGuest(t)
	g.start("c", spec("prog", "cat"), nil)
	go func() {
		_, _ = io.WriteString(g.streams.get(1).in, "through the cat")
		_ = g.streams.get(1).in.Close()
	}()
	b, err := io.ReadAll(g.streams.get(2).out)
	if string(b) != "through the cat" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if e := g.waitExit(); e.Status != 0 {
		t.Errorf("status %d", e.Status)
	}
}

func TestSignals(t *testing.T) {
	g := newGuest(t)
	g.start("c", spec("prog", "trap"), nil)
	out := bufio.NewReader(g.streams.get(2).out)
	if l, err := out.ReadString('\n'); l != "ready\n" {
		t.Fatalf("%q, %v", l, err)
	}
	if err := g.set.Signal(&wire.Signal{ID: "c", Signal: 15}); err != nil {
		t.Fatal(err)
	}
	if e := g.waitExit(); e.Status != 42 {
		t.Errorf("status %d", e.Status)
	}
	if err := g.set.Signal(&wire.Signal{ID: "c", Signal: 15}); err == nil || err.Error() != "container not running" {
		t.Errorf("Signal to a dead container: %v", err)
	}
}

func TestKillCreated(t *testing.T) {
	g := newGuest(t)
	if _, err := g.create("c", spec("prog", "echo"), nil); err != nil {
		t.Fatal(err)
	}
	if err := g.set.Signal(&wire.Signal{ID: "c", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	if e := g.waitExit(); e.Status != 137 {
		t.Errorf("status %d", e.Status)
	}
	if err := g.set.Delete(&wire.DeleteContainer{ID: "c"}); err != nil {
		t.Error(err)
	}
}

// A process that is left behind with stdout does not hold up the exit report,
// and dies with its pid namespace.
func TestBackgroundProcess(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "background", "sleep")
	s["linux"].(m)["namespaces"] = []m{{"type": "mount"}, {"type": "uts"}} // no pid namespace
	g.start("c", s, nil)
	out := bufio.NewReader(g.streams.get(2).out)
	if l, err := out.ReadString('\n'); l != "left true\n" {
		t.Fatalf("%q, %v", l, err)
	}
	if e := g.waitExit(); e.Status != 0 || e.Stdout != 10 {
		t.Errorf("exit %+v", e)
	}
	pids, err := g.set.Pids(&wire.Pids{ID: "c"})
	if err != nil || len(pids.Pids) != 1 {
		t.Errorf("processes %v, %v", pids, err)
	}
	if err := g.set.Signal(&wire.Signal{ID: "c", Signal: 9, All: true}); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(out); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
