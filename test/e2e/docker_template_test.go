//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestDockerTemplate holds the dialogues of TestDocker with containers that begin from a template, by runtimeArgs: docker
// 20.10 has no --annotation.
func TestDockerTemplate(t *testing.T) {
	s := newStore(t)
	d := newDocker(t, "cgroupfs", s.args("--template", "auto")...)
	d.templates = s.dir
	d.run(t, nil, oneOff(dockerImage, "true")...).wantCode(t, 0) // makes it
	after := s.wantUntouched()
	cases := append([]dockerCase{{"Clones", dockerClones}, {"Sizes", dockerSizes}, {"Security", dockerSecurity}, {"Restart", dockerRestart}, {"LiveRestore", dockerLiveRestore}}, dockerCases...)
	d.cases(t, cases...)
	after()
}

// wantBegun fails unless the VM of a sandbox process, if there still is one, goes on from a template below that directory;
// empty: unless it has booted. It says whether it has seen a clone.
func wantBegun(t *testing.T, pid, templates string) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil || len(maps) == 0 {
		return false
	}
	clone := strings.Contains(string(maps), templates+"/auto-")
	if clone != (templates != "") {
		t.Errorf("the VM of pid %s goes on from a template in %q: %t", pid, templates, clone)
	}
	return clone
}

// wantUntouched returns a check, for the end, that the store has the same one template as now.
func (s *store) wantUntouched() func() {
	s.t.Helper()
	name := strings.TrimSpace(s.do("template", "list", "-q"))
	if name == "" || strings.Contains(name, "\n") {
		s.t.Fatalf("the store has %q, want one template", name)
	}
	memory, shown := sum(s.t, filepath.Join(s.dir, name, "memory")), s.show(name)
	return func() {
		s.t.Helper()
		if got := s.names(); got != name {
			s.t.Errorf("the store has %q, want %q", got, name)
		}
		if s.show(name) != shown || sum(s.t, filepath.Join(s.dir, name, "memory")) != memory {
			s.t.Error("the template has been written, or made anew")
		}
	}
}

// cloneScript prints what no two machines share, and their names; NAME is for who cannot give a hostname.
const cloneScript = `cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'
echo; echo ${NAME:-$(hostname)}; grep -c maxcpus=1 /proc/cmdline; ls /sys/class/net; exit 7`

// wantTwoMachines compares what cloneScript has printed in two containers of these names, which have no network but lo.
func wantTwoMachines(t *testing.T, out [2]string, names [2]string) {
	t.Helper()
	var lines [2][]string
	for i := range out {
		lines[i] = strings.Fields(out[i])
		if len(lines[i]) != 6 || lines[i][3] != names[i] || lines[i][4] != "1" || lines[i][5] != "lo" {
			t.Fatalf("%s: %q", names[i], out[i])
		}
	}
	for i := range lines[0][:4] {
		if lines[0][i] == lines[1][i] {
			t.Errorf("%q in both", lines[0][i])
		}
	}
}

// dockerClones: two that begin at once are two machines.
func dockerClones(t *testing.T, d *docker) {
	var out, names [2]string
	var both sync.WaitGroup
	for i := range out {
		names[i] = fmt.Sprint("clone", i)
		both.Go(func() {
			r := d.run(t, nil, oneOff("--hostname", names[i], dockerImage, "sh", "-c", cloneScript)...)
			out[i] = r.stdout
			if r.code != 7 {
				t.Errorf("%s: %d, %s", names[i], r.code, r.stderr)
			}
		})
	}
	both.Wait()
	wantTwoMachines(t, out, names)
	if d.start(t, dockerImage, "sleep", "1000"); d.begun == 0 {
		t.Error("no VM was seen to begin from the template")
	}
}
