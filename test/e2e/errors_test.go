//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealErrors: bad input gives one clear line, runc's exit code, and leaves nothing behind.
func TestRealErrors(t *testing.T) {
	text := filepath.Join(t.TempDir(), "kernel")
	must(t, os.WriteFile(text, []byte("this is no kernel\n"), 0o644))
	half := filepath.Join(t.TempDir(), "vmlinux")
	elf, err := os.ReadFile(filepath.Join(world.bin, "lucid"))
	must(t, err)
	must(t, os.WriteFile(half, elf[:4096], 0o644))

	for _, c := range []struct {
		name   string
		config string   // config.json, when it is not the usual one
		flags  []string // of run
		no     string   // a file of the bundle that is taken away
		root   string   // root.path
		args   []string
		want   []string
	}{
		{name: "missing bundle", flags: []string{"--bundle", "/no/such/dir"}, want: []string{"/no/such/dir"}},
		{name: "missing config", no: "config.json", want: []string{"config.json"}},
		{name: "broken JSON", config: `{"ociVersion": "1.0.2",`, want: []string{"config.json"}},
		{name: "wrong type", config: `{"ociVersion": "1.0.2", "process": {"args": "sh"}}`, want: []string{"process.args"}},
		{name: "no args", args: []string{}, want: []string{"args"}},
		{name: "missing rootfs", root: "no-rootfs", want: []string{"no-rootfs"}},
		{name: "rootfs is a file", root: "config.json", want: []string{"config.json"}},
		{name: "no such program", args: []string{"no-such-program"}, want: []string{`exec: "no-such-program": executable file not found in $PATH`}},
		{name: "kernel missing", flags: []string{"--kernel", "/no/kernel"}, want: []string{"/no/kernel"}},
		{name: "kernel is text", flags: []string{"--kernel", text}, want: []string{text}},
		{name: "kernel is cut off", flags: []string{"--kernel", half}, want: []string{half}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, "true")
			if c.args != nil {
				b.spec.Process.Args = c.args
			}
			if c.root != "" {
				b.spec.Root.Path = c.root
			}
			b.write()
			if c.config != "" {
				must(t, os.WriteFile(filepath.Join(b.dir, "config.json"), []byte(c.config), 0o644))
			}
			if c.no != "" {
				must(t, os.Remove(filepath.Join(b.dir, c.no)))
			}
			flags := c.flags
			if len(flags) == 0 || flags[0] != "--bundle" {
				flags = append(flags, "--bundle", b.dir)
			}
			r := lucid(t, nil, append(append([]string{"run"}, flags...), b.id)...)
			r.wantCode(t, 1)
			wantContains(t, r.stderr, c.want...)
			if n := strings.Count(strings.TrimSpace(r.stderr), "\n"); n != 0 {
				t.Errorf("%d lines, want one:\n%s", n+1, r.stderr)
			}
			if _, err := os.Stat(filepath.Join(world.state, b.id)); !os.IsNotExist(err) {
				t.Errorf("state left behind: %v", err)
			}
			wantNoProcesses(t, b.id)
		})
	}
}

// TestRealNoKVM hides /dev/kvm, then makes it unreadable for the user, in a mount namespace of its own.
func TestRealNoKVM(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	run := world.lucid + " --root " + world.state + " run --bundle " + b.dir + " " + b.id
	for _, c := range []struct{ name, prepare, want string }{
		{"missing", "mount -t tmpfs none /dev", "/dev/kvm"},
		{"no permission", "mount -t tmpfs -o nodev none /mnt; mknod -m 0 /mnt/kvm c 10 232; mount --bind /mnt/kvm /dev/kvm", "/dev/kvm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := exec.Command("unshare", "-m", "sh", "-c", c.prepare+"; "+run).CombinedOutput()
			if code := exitCode(t, err); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			wantContains(t, string(out), c.want)
			if n := strings.Count(strings.TrimSpace(string(out)), "\n"); n != 0 {
				t.Errorf("%d lines, want one:\n%s", n+1, out)
			}
			if _, err := os.Stat(filepath.Join(world.state, b.id)); !os.IsNotExist(err) {
				t.Errorf("state left behind: %v", err)
			}
		})
	}
}

// processes lists the pids whose command line names the container.
func processes(t *testing.T, id string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var found []string
	for _, d := range dirs {
		data, err := os.ReadFile(d)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(data), "\x00")
		if filepath.Base(args[0]) != "lucid" {
			continue
		}
		for _, a := range args[1:] {
			if a == id {
				found = append(found, filepath.Base(filepath.Dir(d)))
			}
		}
	}
	return found
}

func wantNoProcesses(t *testing.T, id string) {
	t.Helper()
	if p := processes(t, id); len(p) > 0 {
		t.Errorf("processes of %s are left: %v", id, p)
	}
}
