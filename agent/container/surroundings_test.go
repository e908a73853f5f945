package container_test

import (
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci/seccomp"
	"github.com/lucid-containers/lucid/internal/wire"
)

// filter compiles a profile that allows all but some system calls.
func filter(t *testing.T, action specs.LinuxSeccompAction, names ...string) *wire.Seccomp {
	t.Helper()
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	if len(names) > 0 {
		p.Syscalls = []specs.LinuxSyscall{{Names: names, Action: action}}
	} else {
		p.DefaultAction = action
	}
	f, err := seccomp.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Seccomp{Filter: f.Program, Flags: f.Flags}
}

// TestSeccomp: the filter is there, for an exec too, with and without
// no_new_privs, for root and others, and the capabilities are those of the spec.
func TestSeccomp(t *testing.T) {
	mkdir := strconv.Itoa(unix.SYS_MKDIR)
	for _, noNewPrivs := range []bool{false, true} {
		for _, uid := range []int{0, 7} {
			g := newGuest(t)
			g.filter = filter(t, specs.ActErrno, "mkdir", "personality")
			prepare := func(p m) {
				p["noNewPrivileges"], p["user"] = noNewPrivs, m{"uid": uid, "gid": 0}
			}
			s := spec("prog", "syscall", mkdir)
			prepare(s["process"].(m))
			if out, errs, code := g.run(s, nil); out != "1\n" || code != 0 {
				t.Errorf("%v, uid %d: mkdir: %q, %q, %d", noNewPrivs, uid, out, errs, code)
			}
			s["process"].(m)["args"] = []string{"prog", "cat", "/proc/self/status"}
			out, errs, code := g.run(s, nil)
			if code != 0 {
				t.Fatal(errs)
			}
			for line, want := range map[string]string{"Seccomp": "2", "NoNewPrivs": strconv.Itoa(int(map[bool]byte{true: 1}[noNewPrivs])), "CapPrm": "00000000000004e3"} {
				if uid != 0 && line == "CapPrm" {
					want = "0000000000000000" // they go with the execve
				}
				if !strings.Contains(out, line+":\t"+want+"\n") {
					t.Errorf("%v, uid %d: no %s %s in %s", noNewPrivs, uid, line, want, out)
				}
			}
			g.start("c", spec("prog", "sleep"), nil)
			p := process("prog", "syscall", mkdir)
			prepare(p)
			if _, err := g.exec("c", "e", p); err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(g.streams.get(12).out); string(b) != "1\n" {
				t.Errorf("%v, uid %d: mkdir in an exec: %q", noNewPrivs, uid, b)
			}
			g.waitExit()
		}
	}
}

// TestSeccompThatForbidsAll: a profile that does not even allow execve, or the
// end of a process, is an error of start, and no process is left.
func TestSeccompThatForbidsAll(t *testing.T) {
	for _, action := range []specs.LinuxSeccompAction{specs.ActErrno, specs.ActKillProcess} {
		for _, noNewPrivs := range []bool{false, true} {
			g := newGuest(t)
			g.filter = filter(t, action)
			s := spec("prog", "echo")
			s["process"].(m)["noNewPrivileges"] = noNewPrivs
			if _, err := g.create("c", s, nil); err != nil {
				t.Fatal(err)
			}
			err := g.set.Start(&wire.StartContainer{ID: "c"})
			if action == specs.ActErrno && err == nil {
				t.Error("it starts")
			}
			if e := g.waitExit(); e.Status < 128 {
				t.Errorf("%s: status %d, %v", action, e.Status, err)
			}
			if err := g.set.Delete(&wire.DeleteContainer{ID: "c"}); err != nil {
				t.Error(err)
			}
		}
	}
	g := newGuest(t)
	for _, bad := range []wire.Seccomp{{}, {Filter: make([]byte, 7)}, {Filter: make([]byte, 8*4097)}, {Filter: make([]byte, 8), Flags: 1 << 30}} {
		g.filter = &bad
		_, err := g.create("c", spec("prog", "echo"), nil)
		if err == nil {
			err = g.set.Start(&wire.StartContainer{ID: "c"})
			g.waitExit()
			_ = g.set.Delete(&wire.DeleteContainer{ID: "c"})
		}
		if err == nil {
			t.Errorf("a filter of %d bytes with flags %#x is taken", len(bad.Filter), bad.Flags)
		}
	}
}

func withNamespace(s m, kind string) m {
	l := s["linux"].(m)
	l["namespaces"] = append(l["namespaces"].([]m), m{"type": kind})
	return s
}

// TestUserNamespace: ids are mapped, files belong to whom they belong, root of
// the namespace may mount, and an exec is in it.
func TestUserNamespace(t *testing.T) {
	g := newGuest(t)
	mapped := func(args ...string) m {
		s := withNamespace(spec(args...), "user")
		s["linux"].(m)["uidMappings"] = []m{{"containerID": 0, "hostID": 1000, "size": 10}}
		s["linux"].(m)["gidMappings"] = []m{{"containerID": 0, "hostID": 2000, "size": 10}}
		return s
	}
	if err := os.WriteFile(g.rootfs+"/etc/theirs", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(g.rootfs+"/etc/theirs", 1003, 2000); err != nil {
		t.Fatal(err)
	}
	out, errs, code := g.run(mapped("prog", "cat", "/proc/self/uid_map", "/proc/self/gid_map"), nil)
	if f := strings.Fields(out); code != 0 || strings.Join(f, " ") != "0 1000 10 0 2000 10" {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	if out, _, _ = g.run(mapped("prog", "stat", "/etc/theirs", "/bin"), nil); !strings.HasSuffix(strings.Split(out, "\n")[0], " 3") || !strings.HasSuffix(out, " 65534\n") {
		t.Errorf("owners: %q", out)
	}
	if out, errs, _ = g.run(mapped("prog", "id"), nil); !strings.HasPrefix(out, "0 0 [] 1 box /") {
		t.Errorf("%q, %q", out, errs)
	}
	s := mapped("prog", "syscall", strconv.Itoa(unix.SYS_UNSHARE), strconv.Itoa(unix.CLONE_NEWNS))
	caps := append([]string{"CAP_SYS_ADMIN"}, dockerCaps...)
	s["process"].(m)["capabilities"] = m{"bounding": caps, "effective": caps, "permitted": caps}
	if out, errs, _ = g.run(s, nil); out != "0\n" {
		t.Errorf("a mount namespace of its own: %q, %q", out, errs)
	}
	g.start("c", mapped("prog", "sleep"), nil)
	if _, err := g.exec("c", "e", process("prog", "cat", "/proc/self/uid_map")); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(g.streams.get(12).out); strings.Join(strings.Fields(string(b)), " ") != "0 1000 10" {
		t.Errorf("in an exec: %q", b)
	}
	g.waitExit()
	if _, err := g.create("bad", withNamespace(spec("prog", "id"), "user"), nil); err == nil {
		t.Error("a user namespace without mappings")
	}
}

// TestTimeNamespace: the offset is seen, in an exec too.
func TestTimeNamespace(t *testing.T) {
	g := newGuest(t)
	s := withNamespace(spec("prog", "cat", "/proc/uptime"), "time")
	s["linux"].(m)["timeOffsets"] = m{"boottime": m{"secs": 1 << 30, "nanosecs": 5}, "monotonic": m{"secs": 7}}
	late := func(out string) bool {
		up, err := strconv.ParseFloat(strings.Fields(out + " x")[0], 64)
		return err == nil && up > 1<<30
	}
	if out, errs, code := g.run(s, nil); !late(out) || code != 0 {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	s["process"].(m)["args"] = []string{"prog", "sleep"}
	g.start("c", s, nil)
	if _, err := g.exec("c", "e", process("prog", "cat", "/proc/uptime")); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(g.streams.get(12).out); !late(string(b)) {
		t.Errorf("in an exec: %q", b)
	}
	g.waitExit()
	s["linux"].(m)["timeOffsets"] = m{"realtime": m{"secs": 1}}
	if _, err := g.create("bad", s, nil); err == nil {
		t.Error("an offset of the wall clock")
	}
}

func TestSchedulerAndPersonality(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "cat", "/proc/self/stat")
	s["process"].(m)["scheduler"] = m{"policy": "SCHED_RR", "priority": 3}
	out, errs, code := g.run(s, nil)
	// proc(5): field 40 is rt_priority, 41 policy.
	if f := strings.Fields(out); code != 0 || len(f) < 41 || f[39] != "3" || f[40] != "2" {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	s["process"].(m)["scheduler"] = m{"policy": "SCHED_BATCH", "nice": 5, "flags": []string{"SCHED_FLAG_RESET_ON_FORK"}}
	out, errs, code = g.run(s, nil)
	if f := strings.Fields(out); code != 0 || len(f) < 41 || f[18] != "5" || f[40] != "3" {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	s = spec("prog", "cat", "/proc/self/personality")
	s["linux"].(m)["personality"] = m{"domain": "LINUX32"}
	if out, errs, _ = g.run(s, nil); out != "00000008\n" {
		t.Errorf("personality %q, %q", out, errs)
	}
	for _, bad := range []m{{"policy": "SCHED_X"}, {"policy": "SCHED_RR", "flags": []string{"X"}}, {"policy": "SCHED_RR", "priority": 1000}} {
		s = spec("prog", "id")
		s["process"].(m)["scheduler"] = bad
		if _, err := g.create("bad", s, nil); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestRootfsPropagation(t *testing.T) {
	for propagation, want := range map[string]string{"": "-", "rprivate": "-", "slave": "-", "rshared": "shared:", "unbindable": "unbindable"} {
		s := spec("prog", "cat", "/proc/self/mountinfo")
		s["linux"].(m)["rootfsPropagation"] = propagation
		out, errs, code := newGuest(t).run(s, nil)
		f := strings.Fields(strings.Split(out, "\n")[0])
		// proc(5), /proc/PID/mountinfo: the optional fields come seventh.
		if code != 0 || len(f) < 7 || f[4] != "/" || !strings.HasPrefix(f[6], want) {
			t.Errorf("%q: %q, %q", propagation, out, errs)
		}
	}
}

func TestUnified(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "cat", "/sys/fs/cgroup/cgroup.max.depth")
	s["linux"].(m)["resources"] = m{"unified": m{"cgroup.max.depth": "7"}}
	if out, errs, _ := g.run(s, nil); out != "7\n" {
		t.Errorf("%q, %q", out, errs)
	}
	for _, bad := range []string{"../x", "a/b", "no.such.file", ""} {
		s["linux"].(m)["resources"] = m{"unified": m{bad: "1"}}
		if _, err := g.create("bad", s, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
