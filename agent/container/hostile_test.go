package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// An image cannot lead a mount outside of it, nor replace /proc.
func TestHostileImage(t *testing.T) {
	outside := t.TempDir()
	links := map[string]func(t *testing.T, root string){
		"parent link": func(t *testing.T, root string) { link(t, outside, filepath.Join(root, "mnt")) },
		"dotdot link": func(t *testing.T, root string) {
			link(t, strings.Repeat("../", 20)+outside, filepath.Join(root, "mnt"))
		},
		"target link": func(t *testing.T, root string) {
			if err := os.Mkdir(filepath.Join(root, "mnt"), 0o755); err != nil {
				t.Fatal(err)
			}
			link(t, outside+"/made", filepath.Join(root, "mnt/vol"))
		},
	}
	for name, plant := range links {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			plant(t, g.rootfs)
			s := spec("prog", "echo")
			s["mounts"] = append(s["mounts"].([]m), m{"destination": "/mnt/vol", "type": "tmpfs"})
			// Whether it works does not matter, but where it works.
			if _, err := g.create("c", s, nil); err == nil {
				_ = g.set.Delete(&wire.DeleteContainer{ID: "c"})
			}
			if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
				t.Errorf("outside has %v, %v", entries, err)
			}
		})
	}
	for _, dir := range []string{"proc", "sys"} {
		t.Run(dir+" is a link", func(t *testing.T) {
			g := newGuest(t)
			link(t, "/tmp", filepath.Join(g.rootfs, dir))
			if _, err := g.create("c", spec("prog", "echo"), nil); !errors.Is(err, unix.ELOOP) {
				t.Errorf("Create: %v", err)
			}
		})
	}
	t.Run("mount in proc", func(t *testing.T) {
		g := newGuest(t)
		for _, dest := range []string{"/proc", "/proc/self/attr", "/./proc/sys"} {
			s := spec("prog", "echo")
			s["mounts"] = append(s["mounts"].([]m), m{"destination": dest, "type": "tmpfs"})
			if _, err := g.create("c", s, nil); err == nil || !strings.Contains(err.Error(), "/proc") {
				t.Errorf("%s: %v", dest, err)
			}
		}
	})
	t.Run("console link", func(t *testing.T) {
		g := newGuest(t)
		s := spec("prog", "echo")
		s["process"].(m)["terminal"] = true
		s["mounts"] = append(s["mounts"].([]m)[:1], m{"destination": "/dev/pts", "type": "devpts", "options": []string{"newinstance", "ptmxmode=0666"}})
		if err := os.Mkdir(filepath.Join(g.rootfs, "dev"), 0o755); err != nil {
			t.Fatal(err)
		}
		link(t, "/etc/victim", filepath.Join(g.rootfs, "dev/console"))
		if _, err := g.create("c", s, nil); err == nil {
			t.Error("a linked /dev/console was accepted")
		}
	})
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

func TestCreateErrors(t *testing.T) {
	g := newGuest(t)
	if err := os.WriteFile(filepath.Join(g.rootfs, "etc/text"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(p m){
		`exec: "foo": executable file not found in $PATH`:             func(p m) { p["args"] = []string{"foo"} },
		`exec: "/no/such": stat /no/such: no such file or directory`:  func(p m) { p["args"] = []string{"/no/such"} },
		`exec: "/etc": is a directory`:                                func(p m) { p["args"] = []string{"/etc"} },
		`exec: "/etc/text": permission denied`:                        func(p m) { p["args"] = []string{"/etc/text"} },
		`process.args: empty`:                                         func(p m) { p["args"] = []string{} },
		`process: a string contains NUL`:                              func(p m) { p["env"] = []string{"A=\x00"} },
		`process.cwd: not an absolute path`:                           func(p m) { p["cwd"] = "bin" },
		`process.rlimits: unknown type "RLIMIT_X"`:                    func(p m) { p["rlimits"] = []m{{"type": "RLIMIT_X"}} },
		`make the working directory: open /bin/prog: not a directory`: func(p m) { p["cwd"] = "/bin/prog" },
	} {
		s := spec("prog", "echo")
		change(s["process"].(m))
		if _, err := g.create("c", s, nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if n := g.set.Len(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

func TestStartErrors(t *testing.T) {
	g := newGuest(t)
	if err := os.WriteFile(filepath.Join(g.rootfs, "bin/garbage"), []byte("\x01\x02\x03"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := g.create("c", spec("garbage"), nil); err != nil {
		t.Fatal(err)
	}
	if err := g.set.Start(&wire.StartContainer{ID: "c"}); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("Start: %v", err)
	}
	if e := g.waitExit(); e.Status != 127 {
		t.Errorf("status %d", e.Status)
	}
	if err := g.set.Start(&wire.StartContainer{ID: "c"}); err == nil || err.Error() != "cannot start a container that has stopped" {
		t.Errorf("second Start: %v", err)
	}
	if err := g.set.Delete(&wire.DeleteContainer{ID: "c"}); err != nil {
		t.Error(err)
	}
	if err := g.set.Start(&wire.StartContainer{ID: "c"}); err == nil || err.Error() != "container does not exist" {
		t.Errorf("third Start: %v", err)
	}
}

// Containers that cannot be made, and those that were deleted, leave no
// descriptor behind. (That no cgroup is left is checked for every test.)
func TestNothingLeaks(t *testing.T) {
	g := newGuest(t)
	bad := map[string]m{"program": spec("foo"), "mount": spec("prog", "echo"), "limit": spec("prog", "echo"), "terminal": spec("prog", "echo")}
	bad["mount"]["mounts"] = append(bad["mount"]["mounts"].([]m), m{"destination": "/x", "type": "ext4"})
	bad["limit"]["process"].(m)["rlimits"] = []m{{"type": "RLIMIT_X"}}
	bad["terminal"]["process"].(m)["terminal"] = true
	bad["terminal"]["mounts"] = []m{}
	round := func() {
		for name, s := range bad {
			if _, err := g.create("bad", s, nil); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if out, errs, _ := g.run(spec("prog", "echo", "x"), nil); out != "x\n" {
			t.Errorf("%q, %q", out, errs)
		}
	}
	round() // what is opened once and kept
	before := openFiles(t)
	for range 5 {
		round()
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
