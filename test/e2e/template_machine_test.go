//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// The sandbox process alone, without the store of templates and without the lifecycle on disk: what it saves, and that
// it goes on from there. The tests speak the launch protocol of internal/control themselves.

// box is a sandbox process under test.
type box struct {
	t              *testing.T
	cmd            *exec.Cmd
	launch         *os.File
	state          string // its state directory
	stdout, stderr bytes.Buffer
	spawned, first time.Time // the process, its first byte of output
}

// Write is the process's stdout.
func (b *box) Write(p []byte) (int, error) {
	if b.first.IsZero() {
		b.first = time.Now()
	}
	return b.stdout.Write(p)
}

// spawnBox starts a sandbox process with that configuration. Zero fields of l are filled in.
func spawnBox(t *testing.T, l control.Launch, plan *oci.Plan) *box {
	t.Helper()
	b := &box{t: t, state: t.TempDir()}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	b.launch = os.NewFile(uintptr(pair[0]), "launch")
	theirs := os.NewFile(uintptr(pair[1]), "launch")
	defer theirs.Close()
	dir, err := os.Open(b.state)
	must(t, err)
	defer dir.Close()
	alive, err := os.Create(filepath.Join(b.state, "alive"))
	must(t, err)
	defer alive.Close()
	log, err := os.Create(filepath.Join(b.state, "log"))
	must(t, err)
	defer log.Close()

	l.ID, l.Spawned = fmt.Sprintf("box-%d", serial.Add(1)), control.Now()
	if l.Kernel == "" {
		l.Kernel = filepath.Join(world.bin, "../guest/out/vmlinux")
		l.Initramfs = filepath.Join(world.bin, "../guest/out/initramfs.cpio")
	}
	l.Plan, err = json.Marshal(plan)
	must(t, err)
	b.cmd = exec.Command(world.lucid, "sandbox", l.ID)
	b.cmd.Env = runtime.SandboxEnv()
	b.cmd.Stdout, b.cmd.Stderr = b, &b.stderr
	b.spawned = time.Now()
	b.cmd.ExtraFiles = []*os.File{theirs, dir, alive, log}
	must(t, b.cmd.Start())
	t.Cleanup(func() {
		_ = b.launch.Close()
		if b.cmd.ProcessState == nil {
			_ = b.cmd.Process.Kill()
			_ = b.cmd.Wait()
		}
	})
	must(t, control.Send(b.launch, l))
	return b
}

// ready waits for the sandbox's word and commits.
func (b *box) ready() error {
	b.t.Helper()
	var r control.Ready
	if err := control.Receive(b.launch, &r); err != nil {
		return fmt.Errorf("%w; log: %s", err, b.log())
	}
	if r.Error != nil {
		return r.Error
	}
	return control.Send(b.launch, control.Commit{})
}

func (b *box) log() string {
	text, _ := os.ReadFile(filepath.Join(b.state, "log"))
	return tail(string(text))
}

// start runs the container's process.
func (b *box) start() {
	b.t.Helper()
	c, err := control.Dial(b.t.Context(), b.state)
	must(b.t, err)
	defer c.Close()
	must(b.t, c.Call(b.t.Context(), control.MethodStart, nil, nil))
}

// wait returns the exit status.
func (b *box) wait() int {
	b.t.Helper()
	timer := time.AfterFunc(limit, func() { _ = b.cmd.Process.Kill() })
	defer timer.Stop()
	return exitCode(b.t, b.cmd.Wait())
}

// timeline is what the sandbox marked.
func (b *box) timeline() map[string]float64 {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.state, control.TimelineFile))
	must(b.t, err)
	var line control.Timeline
	must(b.t, json.Unmarshal(data, &line))
	return line.Marks
}

// plan is what `lucid create` would send for the bundle.
func (b *bundle) plan() *oci.Plan {
	b.t.Helper()
	b.write()
	spec, err := oci.Load(b.dir)
	must(b.t, err)
	p, err := oci.Split(spec, b.dir)
	must(b.t, err)
	return p
}

// machine is the plan of a template: the VM of `lucid spec` without a container.
func machine(vcpus int) *oci.Plan {
	return &oci.Plan{VM: oci.VM{VCPUs: vcpus, Memory: oci.DefaultMemory, Transport: oci.TransportVsock}}
}

// makeTemplate has a sandbox make a template and returns its directory.
func makeTemplate(t *testing.T, plan *oci.Plan) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(world.dir, "upper"), "template-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	start := time.Now()
	b := spawnBox(t, control.Launch{MakeTemplate: dir}, plan)
	if code := b.wait(); code != 0 {
		t.Fatalf("the maker ended with %d: %s\nlog: %s", code, b.stderr.String(), b.log())
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "memory"), &st))
	state, err := os.Stat(filepath.Join(dir, "state"))
	must(t, err)
	t.Logf("template made in %.2f s: %d MiB of memory, %d KiB in the file, %d bytes of state", time.Since(start).Seconds(), st.Size>>20, st.Blocks/2, state.Size())
	return dir
}

// from starts the bundle's container from a template and runs it to its end.
func (b *bundle) from(template string) (*box, int) {
	b.t.Helper()
	x := spawnBox(b.t, control.Launch{Template: template}, b.plan())
	if err := x.ready(); err != nil {
		b.t.Fatalf("%v\nlog: %s", err, x.log())
	}
	x.start()
	return x, x.wait()
}

// TestTemplateEcho is the whole way: a VM is saved, and containers run in it elsewhere. Cold starts of the same come in
// turns with them; the log has the times of both, which `lucid-bench start` compares.
func TestTemplateEcho(t *testing.T) {
	dir := makeTemplate(t, machine(1))
	var took [2][]time.Duration
	for range 3 {
		for i, from := range []string{dir, ""} {
			x, code := newBundle(t, "echo", "hello").from(from)
			if out := x.stdout.String(); code != 0 || out != "hello\n" {
				t.Fatalf("status %d, output %q, log %s", code, out, x.log())
			}
			marks := x.timeline()
			_, restored := marks[control.MarkRestored]
			_, booted := marks[control.MarkKernelEntry]
			if restored != (from != "") || booted == restored {
				t.Errorf("template %q: it was not begun so: marks %v", from, marks)
			}
			took[i] = append(took[i], x.first.Sub(x.spawned))
			t.Logf("template %q: first byte after %v, marks %v", filepath.Base(from), took[i][len(took[i])-1], marks)
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	t.Logf("first byte from the template after %v, cold after %v", took[0][1], took[1][1])
}

// TestTemplateVCPUs: a template of two CPUs gives containers two that run.
func TestTemplateVCPUs(t *testing.T) {
	dir := makeTemplate(t, machine(2))
	plan := newBundle(t, "sh", "-c", "nproc; taskset -c 1 echo on the second; cat /proc/uptime >/dev/null; sleep 0.1").plan()
	plan.VM.VCPUs = 2
	x := spawnBox(t, control.Launch{Template: dir}, plan)
	must(t, x.ready())
	x.start()
	if code, out := x.wait(), x.stdout.String(); code != 0 || out != "2\non the second\n" {
		t.Errorf("status %d, output %q, log %s", code, out, x.log())
	}
}

// TestTemplateDamaged: whatever is wrong with the files, the sandbox says so in one line that names one of them, is not
// ready, and has not let the guest run.
func TestTemplateDamaged(t *testing.T) {
	dir := makeTemplate(t, machine(1))
	plan := newBundle(t, "true").plan()
	for _, c := range []struct {
		name, file string
		damage     func(string) error
	}{
		{"a bit of the state", "state", func(f string) error { return flip(f, 1000) }},
		{"the version", "state", func(f string) error { return flip(f, 8) }},
		{"the state cut short", "state", func(f string) error { return os.Truncate(f, 5000) }},
		{"an empty state", "state", func(f string) error { return os.Truncate(f, 0) }},
		{"no state", "state", os.Remove},
		{"the memory cut short", "memory", func(f string) error { return os.Truncate(f, 64<<20) }},
		{"no memory", "memory", os.Remove},
		{"a directory for memory", "memory", func(f string) error { _ = os.Remove(f); return os.Mkdir(f, 0o700) }},
	} {
		bad, err := os.MkdirTemp(filepath.Join(world.dir, "upper"), "damaged-")
		must(t, err)
		t.Cleanup(func() { must(t, os.RemoveAll(bad)) })
		for _, name := range []string{"state", "memory"} {
			must(t, os.Link(filepath.Join(dir, name), filepath.Join(bad, name)))
		}
		file := filepath.Join(bad, c.file)
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.Remove(file))
		must(t, os.WriteFile(file, data, 0o600))
		must(t, c.damage(file))
		x := spawnBox(t, control.Launch{Template: bad}, plan)
		err = x.ready()
		var ce *control.Error
		if !errors.As(err, &ce) || ce.Kind != control.KindTemplate || !strings.Contains(ce.Message, file) || strings.Contains(ce.Message, "\n") {
			t.Errorf("%s: %v", c.name, err)
		} else {
			t.Logf("%s: %v", c.name, err)
		}
		x.wait()
	}
	wrong := *plan
	wrong.VM.Memory = 64 << 20
	x := spawnBox(t, control.Launch{Template: dir}, &wrong)
	if err := x.ready(); err == nil || !strings.Contains(err.Error(), "128 MiB of memory, not 64") {
		t.Errorf("a template of another VM: %v", err)
	}
}

func flip(file string, at int64) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 4
	_, err = f.WriteAt(b[:], at)
	return err
}

// TestTemplateMakerKilled: at whatever moment the maker is killed, there is no state file, and without one no template.
func TestTemplateMakerKilled(t *testing.T) {
	for after := 200 * time.Millisecond; ; after *= 2 {
		dir, err := os.MkdirTemp(filepath.Join(world.dir, "upper"), "killed-")
		must(t, err)
		x := spawnBox(t, control.Launch{MakeTemplate: dir}, machine(1))
		killed := false
		timer := time.AfterFunc(after, func() { killed = x.cmd.Process.Kill() == nil })
		_ = x.cmd.Wait()
		timer.Stop()
		_, stateErr := os.Stat(filepath.Join(dir, "state"))
		must(t, os.RemoveAll(dir))
		if x.cmd.ProcessState.Success() {
			if stateErr != nil {
				t.Errorf("the maker was done and there is no state: %v", stateErr)
			}
			return
		}
		if !killed || stateErr == nil {
			t.Errorf("after %v: killed %t, state: %v, %s", after, killed, stateErr, x.stderr.String())
		}
	}
}

// TestTemplateIdleMemory measures idle clones of one template: private memory of each, guest and sandbox process together.
// The file is never written through.
func TestTemplateIdleMemory(t *testing.T) {
	dir := makeTemplate(t, machine(1))
	before := sum(t, filepath.Join(dir, "memory"))
	clones := countFromEnv(t, "LUCID_E2E_IDLE", idle)
	var boxes []*box
	for range clones {
		x := spawnBox(t, control.Launch{Template: dir}, newBundle(t, "sleep", "1000").plan())
		if err := x.ready(); err != nil {
			t.Fatalf("%v\nlog: %s", err, x.log())
		}
		x.start()
		boxes = append(boxes, x)
	}
	time.Sleep(settled) // for the sandbox to give back what only the start needed
	total := 0
	for i, x := range boxes {
		private := smapsSum(t, x.cmd.Process.Pid, "Private_Clean:", "Private_Dirty:")
		total += private
		if i < 3 {
			t.Logf("clone %d: %d KiB private, PSS %d KiB, marks %v", i, private, smapsSum(t, x.cmd.Process.Pid, "Pss:"), x.timeline())
		}
	}
	t.Logf("%d KiB private per idle clone", total/clones)
	for _, x := range boxes {
		_ = x.cmd.Process.Kill()
		_ = x.cmd.Wait()
	}
	if after := sum(t, filepath.Join(dir, "memory")); after != before {
		t.Error("the memory file has been written")
	}
	if total/clones > maxClonePrivate {
		t.Errorf("%d KiB private per clone, at most %d", total/clones, maxClonePrivate)
	}
}

// maxClonePrivate is what one idle clone may have for itself, in KiB.
const maxClonePrivate = 12 << 10

// smapsSum adds fields of /proc/PID/smaps_rollup, in KiB.
func smapsSum(t *testing.T, pid int, fields ...string) (kib int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		for _, f := range fields {
			if rest, ok := strings.CutPrefix(line, f); ok {
				var n int
				fmt.Sscanf(rest, "%d", &n)
				kib += n
			}
		}
	}
	return kib
}

func sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return [sha256.Size]byte(h.Sum(nil))
}
