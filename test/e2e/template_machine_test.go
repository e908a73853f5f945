//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
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
	b.cmd.Env = []string{"GOGC=25", "GOMAXPROCS=2"} // as internal/runtime sets them
	b.cmd.Stdout, b.cmd.Stderr = &b.stdout, &b.stderr
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
	t.Logf("template made in %.2f s: %d MiB of memory, %d KiB in the file", time.Since(start).Seconds(), st.Size>>20, st.Blocks/2)
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

// TestTemplateEcho is the whole way: a VM is saved, and a container runs in it elsewhere.
func TestTemplateEcho(t *testing.T) {
	dir := makeTemplate(t, machine(1))
	for range 2 {
		x, code := newBundle(t, "echo", "from a template").from(dir)
		if out := x.stdout.String(); code != 0 || out != "from a template\n" {
			t.Fatalf("status %d, output %q, log %s", code, out, x.log())
		}
		t.Logf("marks %v", x.timeline())
	}
	// A cold start of the same beside it.
	x, code := newBundle(t, "echo", "cold").from("")
	if out := x.stdout.String(); code != 0 || out != "cold\n" {
		t.Fatalf("status %d, output %q, log %s", code, out, x.log())
	}
	t.Logf("cold: marks %v", x.timeline())
}

var (
	_ = context.Background
	_ = io.Discard
	_ = strings.Contains
)
