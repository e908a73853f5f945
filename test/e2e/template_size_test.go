//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
)

// One template, many sizes of VM: what it has not is added when it goes on.

// sizeScript prints the number of CPUs, MemTotal in KiB, what ran on the last CPU, how many MiB a file in memory got,
// and how many threads the guest may have.
const sizeScript = `nproc
while read -r name n _; do [ "$name" = MemTotal: ] && echo "$n"; done </proc/meminfo
taskset -c $(($(nproc) - 1)) echo last
head -c %dm /dev/zero >/dev/shm/full; stat -c %%s /dev/shm/full
cat /proc/sys/kernel/threads-max`

// sizes are those of TestTemplateSizes, and how much a container of them writes, in MiB.
var sizes = []struct {
	vcpus         int
	memory, write uint64
}{
	{1, 128, 60},
	{2, 256, 190},
	{4, 384, 300},
	{1, 200, 150}, // no multiple of a block
	{8, 1024, 900},
}

// TestTemplateSizes: one template of 128 MiB and one CPU serves VMs of other sizes. Their containers see and use what
// they asked for.
func TestTemplateSizes(t *testing.T) {
	dir := makeTemplate(t, machine(1))
	before := sum(t, filepath.Join(dir, "memory"))
	for _, c := range sizes {
		checkSize(t, dir, c.vcpus, c.memory, c.write)
	}
	if sum(t, filepath.Join(dir, "memory")) != before {
		t.Error("the memory file has been written")
	}
}

func checkSize(t *testing.T, dir string, vcpus int, mib, write uint64) {
	t.Helper()
	b := newBundle(t, "sh", "-c", fmt.Sprintf(sizeScript, write))
	for i, m := range b.spec.Mounts {
		if m.Destination == "/dev/shm" {
			b.spec.Mounts[i].Options = []string{"size=100%"}
		}
	}
	plan := b.plan()
	plan.VM.VCPUs, plan.VM.Memory = vcpus, mib<<20
	x := spawnBox(t, control.Launch{Template: dir}, plan)
	if err := x.ready(); err != nil {
		t.Errorf("%d CPUs, %d MiB: %v\nlog: %s", vcpus, mib, err, x.log())
		return
	}
	x.start()
	code, lines := x.wait(), strings.Fields(x.stdout.String())
	if code != 0 || len(lines) != 5 {
		t.Errorf("%d CPUs, %d MiB: status %d, output %q, stderr %q, log %s", vcpus, mib, code, lines, x.stderr.String(), x.log())
		return
	}
	marks := x.timeline()
	total, err := strconv.ParseUint(lines[1], 10, 64)
	must(t, err)
	threads, err := strconv.ParseUint(lines[4], 10, 64)
	must(t, err)
	t.Logf("%d CPUs, %d MiB: MemTotal %d MiB, threads-max %d, hello to created %.0f ms", vcpus, mib, total>>10, threads,
		marks[control.MarkCreated]-marks[control.MarkAgentHello])
	// The kernel's own part: 14 MiB, and 4 of each block. A size that is rounded up has less than a block too much.
	if lo, hi := mib*29/32-20, (mib+127)/128*128; total>>10 < lo || total>>10 > hi {
		t.Errorf("%d MiB: MemTotal is %d MiB, not %d to %d", mib, total>>10, lo, hi)
	}
	want := []string{strconv.Itoa(vcpus), lines[1], "last", strconv.FormatUint(write<<20, 10), lines[4]}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("%d CPUs, %d MiB: %q, want %q", vcpus, mib, lines, want)
	}
	if threads < mib*6 { // fork_init: an eighth of the memory in stacks of 16 KiB
		t.Errorf("%d MiB: at most %d threads", mib, threads)
	}
}

// ofSize is a bundle whose config.json asks for that VM.
func ofSize(t *testing.T, vcpus int, memory string, args ...string) *bundle {
	t.Helper()
	b := newBundle(t, args...)
	b.spec.Annotations = map[string]string{oci.AnnotationVCPUs: strconv.Itoa(vcpus), oci.AnnotationMemory: memory}
	b.write()
	return b
}

// TestTemplateAutoSizes: containers of different sizes find one template; one that is smaller has its own.
func TestTemplateAutoSizes(t *testing.T) {
	s := newStore(t)
	for _, c := range []struct {
		vcpus  int
		memory string
		made   int // templates then
	}{{2, "256m", 1}, {1, "128m", 1}, {3, "640m", 1}, {1, "96m", 2}} {
		b := ofSize(t, c.vcpus, c.memory, "nproc")
		r := lucid(t, nil, s.args("--template", "auto", "run", "--bundle", b.dir, b.id)...)
		r.wantCode(t, 0)
		r.wantStdout(t, fmt.Sprintln(c.vcpus))
		if r.stderr != "" {
			t.Errorf("%v: stderr %q", c, r.stderr)
		}
		if names := strings.Fields(s.do("template", "list", "-q")); len(names) != c.made {
			t.Errorf("%v: templates %v", c, names)
		}
	}
}

// TestTemplateFixed: a kernel that cannot be given all that a VM may ask for has a template for each size.
func TestTemplateFixed(t *testing.T) {
	s := newStore(t)
	kernel, err := filepath.Abs(filepath.Join(world.bin, "../guest/out/vmlinux"))
	must(t, err)
	for i, c := range []struct {
		vcpus  int
		memory string
		made   int // templates then
	}{{2, "256m", 2}, {1, "128m", 2}, {2, "256m", 2}} {
		b := ofSize(t, c.vcpus, c.memory, "nproc")
		b.spec.VM = &specs.VM{Kernel: specs.VMKernel{Path: kernel, Parameters: []string{"nr_cpus=2"}}}
		b.write()
		r := lucid(t, nil, s.args("--template", "auto", "run", "--bundle", b.dir, b.id)...)
		r.wantCode(t, 0)
		r.wantStdout(t, fmt.Sprintln(c.vcpus))
		if names := strings.Fields(s.do("template", "list", "-q")); len(names) != c.made || i > 0 && r.stderr != "" {
			t.Errorf("%v: templates %v, stderr %q", c, names, r.stderr)
		}
	}
	wantContains(t, s.do("template", "show", strings.Fields(s.do("template", "list", "-q"))[0]), `"Fixed": true`)
}
