//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/internal/oci"
)

// TestPodmanTemplate holds the dialogues of TestPodman with containers that begin from a template, by --runtime-flag, which
// podman hands on to each call of the runtime, and by --annotation.
func TestPodmanTemplate(t *testing.T) {
	s := newStore(t)
	s.do("template", "create")
	after := s.wantUntouched()
	p := newPodman(t, "cgroupfs")
	p.flags = append(p.flags, "--runtime-flag", "template-dir="+s.dir)
	run := func(p *podman, name string, more ...string) result {
		args := append([]string{"run", "--rm", "--network", "none", "--hostname", name}, more...)
		return p.run(t, nil, append(args, "--rootfs", newBundle(t).root, "sh", "-c", cloneScript)...)
	}
	booted := run(p, "booted", "--annotation", oci.AnnotationTemplate+"=off")
	booted.wantCode(t, 7)
	wantContains(t, booted.stdout, "\nbooted\n0\n") // of maxcpus=1

	t.Run("Annotation", func(t *testing.T) {
		var out, names [2]string
		var both sync.WaitGroup
		for i := range out {
			names[i] = fmt.Sprint("clone", i)
			both.Go(func() {
				r := run(p, names[i], "--annotation", oci.AnnotationTemplate+"=auto")
				out[i] = r.stdout
				if r.code != 7 {
					t.Errorf("%s: %d, %s", names[i], r.code, r.stderr)
				}
			})
		}
		both.Wait()
		wantTwoMachines(t, out, names)
	})
	t.Run("Sizes", func(t *testing.T) {
		r := p.run(t, nil, "run", "--rm", "--network", "none", "--annotation", oci.AnnotationTemplate+"=auto", "--memory", "300m", "--cpu-quota", "200000",
			"--rootfs", newBundle(t).root, "sh", "-c", "nproc; taskset -c 1 echo second; cat /sys/fs/cgroup/memory.max; grep -o maxcpus=1 /proc/cmdline")
		r.wantCode(t, 0)
		if got := strings.Fields(r.stdout); fmt.Sprint(got) != "[2 second 314572800 maxcpus=1]" {
			t.Errorf("%q", got)
		}
	})
	t.Run("Volume", func(t *testing.T) {
		dir := t.TempDir()
		r := p.run(t, nil, "run", "--rm", "--network", "none", "--annotation", oci.AnnotationTemplate+"=auto", "-v", dir+":/data",
			"--rootfs", newBundle(t).root, "sh", "-c", "echo written >/data/new; grep -o maxcpus=1 /proc/cmdline")
		r.wantCode(t, 0)
		r.wantStdout(t, "maxcpus=1\n")
		if data, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(data) != "written\n" {
			t.Errorf("on the host: %q, %v", data, err)
		}
	})
	p.flags, p.templates = append(p.flags, "--runtime-flag", "template=auto"), s.dir
	testPodman(t, p)
	after()
}
