package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func env(kv ...string) func(string) string {
	m := map[string]string{"HOME": "/nowhere"}
	for _, s := range kv {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return func(k string) string { return m[k] }
}

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"-v", "--", "-prog", "a b"}, env("LAB_MEM=512", "LAB_CPUS=4", "LAB_TIMEOUT=90", "LAB_KVM=npt=0"))
	if err != nil {
		t.Fatal(err)
	}
	want := &options{
		Args: []string{"-prog", "a b"}, Verbose: true, MemMiB: 512, CPUs: 4, Timeout: 90 * time.Second,
		CPU: defaultCPU, KVM: "npt=0", QEMU: "qemu-system-x86_64", Cache: "/nowhere/.cache/lucid/lab",
	}
	if d := cmp.Diff(want, o); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"-prog", "a b"}, o.command()); d != "" {
		t.Error(d)
	}
	o, err = parseOptions([]string{"echo $A; exit 3"}, env("LAB_TIMEOUT=1h30m", "LUCID_CACHE=/c", "LAB_ICOUNT=1"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"bash", "-c", "echo $A; exit 3"}, o.command()); d != "" {
		t.Error(d)
	}
	if o.Timeout != 90*time.Minute || o.Cache != "/c/lab" || o.CPUs != 1 {
		t.Errorf("%+v", o)
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  string
	}{
		{nil, ""},
		{[]string{"-x", "true"}, ""},
		{[]string{"true"}, "LAB_MEM=lots"},
		{[]string{"true"}, "LAB_MEM=1"},
		{[]string{"true"}, "LAB_CPUS=0"},
		{[]string{"true"}, "LAB_TIMEOUT=soon"},
		{[]string{"true"}, "LAB_TIMEOUT=-1"},
		{[]string{"true"}, "LAB_MEMFILES=/no/such/file"},
	} {
		if _, err := parseOptions(c.args, env(c.env)); !errors.Is(err, errUsage) {
			t.Errorf("%q %s: %v, want a usage error", c.args, c.env, err)
		}
	}
	if _, err := parseOptions([]string{"true"}, env("LAB_ICOUNT=1")); err != nil {
		t.Error(err)
	}
	o := func(s string) string {
		return map[string]string{"LAB_ICOUNT": "1", "LAB_CPUS": "2"}[s]
	}
	if _, err := parseOptions([]string{"true"}, o); !errors.Is(err, errUsage) {
		t.Errorf("LAB_ICOUNT with two CPUs: %v", err)
	}
}

func TestResolve(t *testing.T) {
	tree := &moduleTree{files: map[string]string{}}
	all := map[string]deps{
		"kvm_amd": {Need: []string{"kvm", "ccp"}},
		"kvm":     {Need: []string{"irqbypass", "in_the_kernel"}, Pre: []string{"not_there"}},
		"ccp":     {}, "irqbypass": {},
		"ext4":  {Need: []string{"jbd2"}, Pre: []string{"crc32c"}},
		"jbd2":  {Pre: []string{"ext4"}}, // soft circles are fine
		"loop1": {Need: []string{"loop2"}}, "loop2": {Need: []string{"loop1"}},
		"lost": {Need: []string{"nowhere"}},
	}
	for n := range all {
		tree.files[n] = "/m/" + n + ".ko"
	}
	tree.files["in_the_kernel"] = ""
	tree.deps = func(p string) (deps, error) { return all[moduleName(p)], nil }
	got, err := tree.resolve([]string{"kvm-amd", "ext4", "kvm"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/m/irqbypass.ko", "/m/kvm.ko", "/m/ccp.ko", "/m/kvm_amd.ko", "/m/jbd2.ko", "/m/ext4.ko"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"loop1", "lost", "absent"} {
		if got, err := tree.resolve([]string{bad}); err == nil {
			t.Errorf("%s resolved to %v", bad, got)
		}
	}
}

func TestParseModinfo(t *testing.T) {
	got := parseModinfo([]byte("license=GPL\x00depends=jbd2,mbcache\x00softdep=pre: crc32c sha256 post: late\x00depends=\x00"))
	want := deps{Need: []string{"jbd2", "mbcache"}, Pre: []string{"crc32c", "sha256"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestQEMUArgs(t *testing.T) {
	k := &kernel{Vmlinux: "/k/vmlinux"}
	o := &options{MemMiB: 1024, CPUs: 2, CPU: defaultCPU}
	args := strings.Join(qemuArgs(o, k, nil), " ")
	for _, want := range []string{
		"tcg,thread=multi", "-smp 2", "-m 1024M ", "-kernel /k/vmlinux -initrd /proc/self/fd/8",
		"path=/,security_model=none,multidevs=remap,readonly=on", "mount_tag=labroot", "fd=7", "name=lab.stderr",
	} {
		if !strings.Contains(args+" ", want) {
			t.Errorf("no %q in %s", want, args)
		}
	}
	if strings.Contains(args, "nvdimm") || strings.Contains(args, "icount") || strings.Contains(args, "labout") {
		t.Errorf("too much: %s", args)
	}
	o = &options{MemMiB: 1024, CPUs: 1, ICount: true, Out: "/out"}
	args = strings.Join(qemuArgs(o, k, []disk{{"/i,1.ext4", 128 << 20}, {"/i2", 256 << 20}}), " ")
	for _, want := range []string{
		"-icount shift=0,sleep=off", "thread=single", "clock=vm", "-seed 1", "slots=2,maxmem=2432M",
		"mem-path=/i,,1.ext4,size=134217728,share=off", "memdev=img1", "mount_tag=labout",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("no %q in %s", want, args)
		}
	}
	if strings.Contains(args, "labroot") {
		t.Errorf("LAB_ICOUNT with the host's files: %s", args)
	}
}

func TestConsoleCrash(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: &out}
	c.routine(strings.NewReader("quiet\r\nfine\nBUG: kernel NULL pointer dereference\nCall Trace:\n"))
	if got, want := out.String(), "L1: quiet\nL1: fine\nL1: BUG: kernel NULL pointer dereference\nL1: Call Trace:\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := c.failed(); got != "BUG: kernel NULL pointer dereference" {
		t.Errorf("crash line %q", got)
	}
	out.Reset()
	c = &console{out: &out}
	for range 3 * tailLines {
		c.line([]byte("x"))
	}
	if out.Len() != 0 {
		t.Error("a healthy kernel was shown")
	}
	if c.failed() != "" || strings.Count(out.String(), "\n") != tailLines {
		t.Errorf("%d lines kept", strings.Count(out.String(), "\n"))
	}
}

func TestEnviron(t *testing.T) {
	got := environ([]string{"PATH=/x", "TMPDIR=/y", "MAKEFLAGS=j", "FOO=a=b"})
	for _, want := range []string{"PATH=/x", "FOO=a=b", "HOME=/root", "TMPDIR=/lab/tmp", "LUCID_LAB=1"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	for _, bad := range []string{"TMPDIR=/y", "MAKEFLAGS=j"} {
		if slices.Contains(got, bad) {
			t.Errorf("%s in %q", bad, got)
		}
	}
}

func TestCpio(t *testing.T) {
	b := cpio([]initFile{{"/init", 0o755, []byte("abc")}, {"/lab/x", 0o600, nil}})
	if len(b)%4 != 0 || !bytes.HasPrefix(b, []byte("070701")) {
		t.Fatalf("%d bytes, %q", len(b), b[:6])
	}
	for _, name := range []string{"dev", "proc", "sys", "init", "lab", "lab/x", "TRAILER!!!"} {
		if n := bytes.Count(b, append([]byte(name), 0)); n != 1 {
			t.Errorf("%s is in it %d times", name, n)
		}
	}
}

// The image set must hold what a path needs to resolve: links and parents.
func TestImageSet(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mk := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	mk(os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755))
	mk(os.Symlink("usr/bin", filepath.Join(dir, "bin")))
	mk(os.WriteFile(filepath.Join(dir, "usr/bin/dash"), []byte("d"), 0o755))
	mk(os.Symlink("dash", filepath.Join(dir, "usr/bin/sh")))
	mk(os.Symlink("loop", filepath.Join(dir, "loop")))
	mk(os.MkdirAll(filepath.Join(dir, "tree/a"), 0o755))
	mk(os.WriteFile(filepath.Join(dir, "tree/a/f"), nil, 0o600))
	s := newImageSet()
	mk(s.add(filepath.Join(dir, "bin/sh")))
	mk(s.add(filepath.Join(dir, "tree")))
	for _, p := range []string{"bin", "usr", "usr/bin", "usr/bin/sh", "usr/bin/dash", "tree", "tree/a", "tree/a/f"} {
		if s.paths[filepath.Join(dir, p)] == nil {
			t.Errorf("%s is missing", p)
		}
	}
	if s.paths[filepath.Join(dir, "bin/sh")] != nil {
		t.Error("a path through a link was taken")
	}
	key := s.key()
	mk(os.WriteFile(filepath.Join(dir, "tree/a/f"), []byte("x"), 0o600))
	s = newImageSet()
	mk(s.add(filepath.Join(dir, "bin/sh")))
	mk(s.add(filepath.Join(dir, "tree")))
	if s.key() == key {
		t.Error("the key did not notice a changed file")
	}
	_ = s.add(filepath.Join(dir, "loop")) // must end
}

func TestMissingToolIsOneLine(t *testing.T) {
	_, err := prepare(&options{QEMU: "no-such-qemu"})
	if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}
