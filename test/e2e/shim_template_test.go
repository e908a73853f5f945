//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// The shim's VMs begin from a template if containerd's environment says so, or an annotation.

// fromTemplates has a daemon's environment say so. The store is the default one, which in the lab is the test's own.
func (d *containerd) fromTemplates() *containerd {
	d.env, d.templates = []string{runtime.TemplateEnv + "=auto"}, runtime.DefaultTemplates()
	return d
}

// wantOneTemplate fails unless VMs were seen to begin from a template, which is the only one.
func (d *containerd) wantOneTemplate(t *testing.T) {
	t.Helper()
	(&store{t, d.templates}).wantUntouched()
	if t.Logf("%d VMs begin from a template", d.begun); d.begun == 0 {
		t.Error("no VM was seen to begin from the template")
	}
}

// TestShimTemplate holds the dialogues of TestShimContainerd16.
func TestShimTemplate(t *testing.T) {
	s := &store{t, runtime.DefaultTemplates()}
	s.do("template", "create") // the one that auto uses
	after := s.wantUntouched()
	d := (&containerd{name: "template", bin: "/usr/bin"}).fromTemplates()
	testShim(t, d, "apt-get install containerd")
	t.Run("Clones", func(t *testing.T) {
		d.background(t, "clone", nil, "/bin/sleep", "1000")
		shimClones(t, d)
	})
	t.Run("Off", func(t *testing.T) {
		r := d.ctr(t, nil, d.run(t, "off1", []string{"--rm", "--annotation", oci.AnnotationTemplate + "=off"}, "/bin/sh", "-c", "grep -c maxcpus=1 /proc/cmdline")...)
		r.wantStdout(t, "0\n")
	})
	t.Run("Sizes", func(t *testing.T) {
		r := d.ctr(t, nil, d.run(t, "size1", []string{"--rm", "--memory-limit", "314572800", "--annotation", oci.AnnotationVCPUs + "=2"},
			"/bin/sh", "-c", "nproc; taskset -c 1 echo second; perl -e '$x = \"y\" x 140000000; print length $x, \"\\n\"'; grep -o maxcpus=1 /proc/cmdline")...)
		r.wantCode(t, 0)
		r.wantStdout(t, "2\nsecond\n140000000\nmaxcpus=1\n")
	})
	t.Run("NothingLeftOfClones", func(t *testing.T) { d.wantNothing(t) })
	after()
	d.wantOneTemplate(t)
}

// shimClones: two that begin at once are two machines.
func shimClones(t *testing.T, d *containerd) {
	var out, names [2]string
	var args [2][]string
	for i := range args {
		names[i] = fmt.Sprint("clone", i)
		args[i] = d.run(t, names[i], []string{"--rm", "--env", "NAME=" + names[i]}, "/bin/sh", "-c", cloneScript)
	}
	var both sync.WaitGroup
	for i := range args {
		both.Go(func() {
			r := d.ctr(t, nil, args[i]...)
			out[i] = r.stdout
			if r.code != 7 {
				t.Errorf("%s: %d, %s", names[i], r.code, r.stderr)
			}
		})
	}
	both.Wait()
	wantTwoMachines(t, out, names)
}

// TestShimTemplatePods holds the dialogues of TestShimPods2 with pods that begin from a template, which the first one makes.
func TestShimTemplatePods(t *testing.T) {
	d := (&containerd{name: "podtemplate", bin: filepath.Join(world.bin, "containerd-v2")}).fromTemplates()
	testPods(t, d, "make containerd-v2")
	d.wantOneTemplate(t)
}

// TestShimTemplateSandboxer does that with pods that containerd asks the shim for, as kubelet does.
func TestShimTemplateSandboxer(t *testing.T) {
	d := newContainerd(t, cri2("sandboxertemplate").fromTemplates(), "make containerd-v2")
	k := newKubelet(t, d, "busybox")
	testCRI(t, k, "lucid-sandbox")
	t.Run("Limits", func(t *testing.T) { k.t = t; sandboxerLimits(t, k) })
	t.Run("NothingLeftOfLimits", func(t *testing.T) { k.t = t; criNothingLeft(t, k) })
	d.wantOneTemplate(t)
}
