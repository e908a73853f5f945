//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The commands for templates, and containers that start from one, as a user sees them. What the sandbox process saves
// and restores is in template_machine_test.go, the store of templates in internal/template.

// store is a directory of templates for one test.
type store struct {
	t   *testing.T
	dir string
}

func newStore(t *testing.T) *store {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(world.dir, "upper"), "templates-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return &store{t, filepath.Join(dir, "store")}
}

// args puts --template-dir before a command.
func (s *store) args(args ...string) []string {
	return append([]string{"--template-dir", s.dir}, args...)
}

// do runs a command that must succeed and returns what it prints.
func (s *store) do(args ...string) string {
	s.t.Helper()
	r := lucid(s.t, nil, s.args(args...)...)
	s.t.Logf("%v: %v", args, r.took.Round(time.Millisecond))
	r.wantCode(s.t, 0)
	return r.stdout
}

// run runs a new container from a template.
func (s *store) run(template string, args ...string) result {
	s.t.Helper()
	b := newBundle(s.t, args...)
	b.write()
	return lucid(s.t, nil, s.args("--template", template, "run", "--bundle", b.dir, b.id)...)
}

// Where a VM begins.
const (
	boot  = "boot"
	clone = "clone"
)

// begin runs a container, whose command line of the kernel says where its VM began. Its command says no more than the
// warnings, a line each.
func (s *store) begin(template string, warnings ...string) (where string) {
	s.t.Helper()
	r := s.run(template, "cat", "/proc/cmdline")
	r.wantCode(s.t, 0)
	wantContains(s.t, r.stderr, warnings...)
	if strings.Count(r.stderr, "\n") != len(warnings) || !strings.HasSuffix(r.stdout, "\n") {
		s.t.Errorf("stdout %q, stderr %q, want %q", r.stdout, r.stderr, warnings)
	}
	where = boot
	if strings.Contains(r.stdout, " maxcpus=") {
		where = clone
	}
	s.t.Logf("--template %s: %s, %v", template, where, r.took.Round(time.Millisecond))
	return where
}

// wantFrom fails unless a container's VM begins there, and its command says no more than the warnings.
func (s *store) wantFrom(where, template string, warnings ...string) {
	s.t.Helper()
	if got := s.begin(template, warnings...); got != where {
		s.t.Errorf("--template %s: %s, want %s", template, got, where)
	}
}

// show is what a template is, all but the room that it takes: on a tmpfs a page of a hole that a clone reads takes some.
func (s *store) show(name string) string {
	s.t.Helper()
	text, _, _ := strings.Cut(s.do("template", "show", name), `"Disk"`)
	return text
}

// names is what is in the store's directory, with what is half-made.
func (s *store) names() string {
	s.t.Helper()
	entries, err := os.ReadDir(s.dir)
	must(s.t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// TestTemplateUse: auto makes a template once and uses it; a truncated one is made anew, or is a boot if it is the user's.
func TestTemplateUse(t *testing.T) {
	s := newStore(t)
	s.wantFrom(boot, "off")
	s.wantFrom(clone, "auto")
	s.wantFrom(clone, "auto")
	name := strings.TrimSpace(s.do("template", "list", "-q"))
	if got := s.do("template", "create"); got != name+"\n" {
		t.Errorf("create prints %q, want %q", got, name)
	}
	if got := s.do("template", "create", "box"); got != "box\n" {
		t.Errorf("create box prints %q", got)
	}
	s.wantFrom(clone, "box")
	wantContains(t, s.do("template", "show", "box"), `"VCPUs": 1`, `"Transport": "vsock"`)
	if got := s.do("template", "verify"); got != name+": ok\nbox: ok\n" {
		t.Errorf("verify prints %q", got)
	}

	for _, n := range []string{name, "box"} {
		must(t, os.Truncate(filepath.Join(s.dir, n, "memory"), 1<<20))
	}
	const why = "/memory: has 1048576 bytes, not 134217728"
	wantContains(t, s.do("template", "list"), name+why, "box"+why)
	s.wantFrom(boot, "box", "booting: the template is of no use: "+s.dir+"/box"+why)
	before := s.show(name)
	s.wantFrom(clone, "auto", "making the template anew: "+s.dir+"/"+name+why)
	after := s.show(name)
	if after == before {
		t.Error("it has not been made anew")
	}
	s.wantFrom(clone, "auto")
	if got := s.do("template", "prune"); got != "box\n" {
		t.Errorf("prune prints %q", got)
	}

	// As after a boot of the host: nothing is cached, and it was another boot in which somebody has compared the hashes.
	s.newBoot(name)
	s.wantFrom(clone, "auto")
	if s.show(name) != after {
		t.Error("after a boot it has been made anew")
	}
	if seen, err := os.ReadFile(filepath.Join(s.dir, name, "verified")); err != nil || string(seen) == otherBoot {
		t.Errorf("after a boot nobody has compared the hashes: %q, %v", seen, err)
	}
	s.do("template", "remove", name)
	if got := s.names(); got != "" {
		t.Errorf("the store has %s", got)
	}
}

const otherBoot = "00000000-0000-4000-8000-000000000000\n"

// newBoot makes of the host one that has booted since.
func (s *store) newBoot(name string) {
	s.t.Helper()
	must(s.t, os.WriteFile(filepath.Join(s.dir, name, "verified"), []byte(otherBoot), 0o600))
	must(s.t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
}

// TestTemplateSpoilt: contents that have changed in a way that inode, size and time do not show are found after a boot of the
// host, by who restores, and by `template verify`; auto makes a template anew then, once.
func TestTemplateSpoilt(t *testing.T) {
	s := newStore(t)
	s.do("template", "create")
	name := strings.TrimSpace(s.do("template", "list", "-q"))
	spoil := func(file string) (why string) {
		path := filepath.Join(s.dir, name, file)
		info, err := os.Stat(path)
		must(t, err)
		at := int64(1000)
		if file == "memory" { // where there is something
			f, err := os.Open(path)
			must(t, err)
			at, err = unix.Seek(int(f.Fd()), 1<<20, unix.SEEK_DATA)
			must(t, err)
			must(t, f.Close())
		}
		must(t, flip(path, at))
		must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		return path + ": has other contents than when it was made"
	}
	anew := "making the template anew: "

	why := spoil("memory")
	s.newBoot(name)
	s.wantFrom(clone, "auto", anew+why)
	s.wantFrom(clone, "auto")

	why = spoil("state")
	s.wantFrom(boot, "auto", "booting: template cannot be used: ", "the template is spoilt: "+why)
	s.wantFrom(clone, "auto", anew+why)
	s.wantFrom(clone, "auto")

	why = spoil("memory")
	r := lucid(t, nil, s.args("template", "verify")...)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, why)
	s.wantFrom(clone, "auto", anew+why)
	s.wantFrom(clone, "auto")
	if got := s.names(); got != name {
		t.Errorf("the store has %s", got)
	}
}

// TestRealTemplate: a VM is saved and goes on, on this machine's KVM too. What boots in place of that says so on stderr.
func TestRealTemplate(t *testing.T) {
	s := newStore(t)
	s.do("template", "create", "box")
	s.wantFrom(clone, "box")
	s.wantFrom(clone, "box")
	// And with more than it was saved with.
	b := ofSize(t, 2, "256m", "sh", "-c", "nproc; grep MemTotal /proc/meminfo; taskset -c 1 echo second")
	r := lucid(t, nil, s.args("--template", "box", "run", "--bundle", b.dir, b.id)...)
	t.Logf("2 CPUs, 256 MiB: %v", r.took.Round(time.Millisecond))
	r.wantCode(t, 0)
	if f := strings.Fields(r.stdout); len(f) != 5 || f[0] != "2" || f[2] < "220000" || f[2] > "262144" || f[4] != "second" || r.stderr != "" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if got := s.do("template", "verify", "box"); got != "box: ok\n" {
		t.Errorf("verify: %q", got)
	}
}

// TestTemplateMakers: of two that find no template one makes it and the other boots; one that is killed leaves nothing
// that is taken for a template.
func TestTemplateMakers(t *testing.T) {
	s := newStore(t)
	for _, after := range []time.Duration{300 * time.Millisecond, 2 * time.Second, 4 * time.Second} {
		ctx, kill := context.WithTimeout(t.Context(), after)
		cmd := exec.CommandContext(ctx, world.lucid, s.args("--root", world.state, "template", "create", "box")...)
		_ = cmd.Run()
		kill()
		if got := s.do("template", "list", "-q"); got != "" {
			t.Logf("made within %v", after)
			s.do("template", "remove", "box")
		}
	}
	var both sync.WaitGroup
	var clones atomic.Int32
	for range 2 {
		both.Go(func() {
			if s.begin("auto") == clone {
				clones.Add(1)
			}
		})
	}
	both.Wait()
	if n := clones.Load(); n < 1 { // the other one boots, or comes when it is made
		t.Error("nobody has made a template")
	}
	if got := strings.Fields(s.names()); len(got) != 1 || got[0] != strings.TrimSpace(s.do("template", "list", "-q")) {
		t.Errorf("the store has %v", got)
	}
	s.wantFrom(clone, "auto")
}

// TestTemplateClones: clones are different machines, with the right time, and none writes into its template.
func TestTemplateClones(t *testing.T) {
	s := newStore(t)
	s.do("template", "create", "box")
	before := s.show("box")
	// The machine-id as systemd makes it: 16 random bytes. The place of a program is drawn at its execve.
	const script = `head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; echo
cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
rm -f /etc/machine-id; od -An -tx1 -N16 /dev/random | tr -d ' \n' >/etc/machine-id; cat /etc/machine-id; echo
head -n 1 /proc/self/maps | cut -d - -f 1
date +%s.%N`
	fields := []string{"getrandom", "boot_id", "uuid", "machine-id", "address"}
	seen := map[string]string{}
	for range 4 {
		start := time.Now()
		r := s.run("box", "bash", "-c", script)
		end := time.Now()
		t.Logf("clone: %v", r.took.Round(time.Millisecond))
		r.wantCode(t, 0)
		if r.stderr != "" {
			t.Errorf("stderr %q", r.stderr)
		}
		lines := strings.Fields(r.stdout)
		if len(lines) != len(fields)+1 {
			t.Fatalf("%q", r.stdout)
		}
		for i, f := range fields {
			if other := seen[f+lines[i]]; other != "" || len(lines[i]) < 8 {
				t.Errorf("%s %s again", f, lines[i])
			}
			seen[f+lines[i]] = f
		}
		now, err := strconv.ParseFloat(lines[len(fields)], 64)
		must(t, err)
		at := time.Unix(0, int64(now*1e9))
		if at.Before(start.Add(-time.Second)) || at.After(end.Add(time.Second)) {
			t.Errorf("the guest's clock says %v between %v and %v", at, start, end)
		}
	}
	if got := s.do("template", "verify", "box"); got != "box: ok\n" {
		t.Errorf("verify: %q", got)
	}
	if after := s.show("box"); after != before {
		t.Errorf("the template has changed: %s, before %s", after, before)
	}
}
