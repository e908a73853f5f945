package container_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPrepared: a container that finds its cgroup made is like any other, and one
// that fails leaves nothing of it.
func TestPrepared(t *testing.T) {
	g := newGuest(t)
	if out, _, _ := g.run(spec("prog", "echo", "x"), nil); out != "x\n" { // what is opened once and kept
		t.Fatalf("%q", out)
	}
	before := openFiles(t)
	prepare := func() {
		t.Helper()
		for range 2 { // the second finds what the first has made
			if err := g.set.Prepare(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct{ file, want string }{
		{"/proc/self/cgroup", "0::/\n"},
		{"/sys/fs/cgroup/cgroup.procs", "1\n"},
	} {
		prepare()
		if out, errs, _ := g.run(spec("prog", "cat", c.file), nil); !strings.Contains(out, c.want) {
			t.Errorf("%s: %q, want %q (%s)", c.file, out, c.want, errs)
		}
	}
	prepare()
	if _, err := g.create("bad", spec("no such program"), nil); err == nil {
		t.Error("no error")
	}
	prepare()
	bad := spec("prog", "echo", "x")
	bad["linux"].(m)["resources"] = m{"unified": m{"../x": "1"}}
	if _, err := g.create("bad", bad, nil); err == nil {
		t.Error("no error")
	}
	if out, _, _ := g.run(spec("prog", "echo", "x"), nil); out != "x\n" { // takes the mounts
		t.Fatalf("%q", out)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestPreparedMounts: file systems that were made before the container are those that it would get, and so is what is in
// them; one that is not what config.json asks for is not taken.
func TestPreparedMounts(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "cat", "/proc/self/mountinfo")
	seen := func(s m) string {
		t.Helper()
		out, errs, code := g.run(s, nil)
		if code != 0 {
			t.Fatalf("%d: %s", code, errs)
		}
		return out
	}
	number := regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+|\d+ - `) // ids of mounts and devices
	// In the order of their ids, which is that of their making: as on a host whose initramfs has mounted /dev.
	mounts := func(s m) string {
		return strings.Join(slices.Sorted(strings.Lines(number.ReplaceAllString(seen(s), ""))), "")
	}
	stats := func() (all string) {
		for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "pts/ptmx"} {
			all += seen(spec("prog", "stat", "/dev/"+name))
		}
		return all
	}
	prepare := func() {
		t.Helper()
		if err := g.set.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	odd := spec("prog", "cat", "/proc/self/mountinfo")
	odd["mounts"].([]m)[1]["options"] = []string{"nosuid", "strictatime", "mode=755", "size=1024k"}
	null := spec("prog", "stat", "/dev/null")
	null["mounts"] = append(null["mounts"].([]m), m{"destination": "/dev/null", "type": "bind", "source": "/bin/prog", "options": []string{"bind"}})
	for name, look := range map[string]func() string{
		"mounts": func() string { return mounts(s) }, "/dev": func() string { return seen(spec("prog", "ls", "/dev")) }, "nodes": stats,
		"another size":    func() string { return mounts(odd) },
		"mount on a node": func() string { return seen(null) },
		"a read-only one": func() string {
			s := spec("prog", "write", "/dev/x", "y")
			s["mounts"].([]m)[1]["options"] = []string{"nosuid", "strictatime", "mode=755", "size=65536k", "ro"}
			_, errs, _ := g.run(s, nil)
			return errs
		},
	} {
		want := look()
		prepare()
		if got := look(); got != want || want == "" {
			t.Errorf("%s: prepared\n%s\notherwise\n%s", name, got, want)
		}
	}
}
