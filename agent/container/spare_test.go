package container_test

import (
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
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
