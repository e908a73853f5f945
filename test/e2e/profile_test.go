//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestRealProfile: --profile DIR leaves a CPU profile that go tool pprof reads, with the sandbox's functions in it, and a histogram of
// the VM's exits that adds up.
func TestRealProfile(t *testing.T) {
	b := newBundle(t, "sh", "-c", "i=0; while [ $i -lt 20 ]; do read x </etc/os-release; i=$((i+1)); done")
	b.write()
	dir := filepath.Join(b.dir, "profile")
	lucid(t, nil, "--profile", dir, "run", "--bundle", b.dir, b.id).wantCode(t, 0)

	text, err := os.ReadFile(filepath.Join(dir, b.id+".exits.txt"))
	must(t, err)
	checkHistogram(t, string(text))

	profile := filepath.Join(dir, b.id+".cpu.pprof")
	data, err := os.ReadFile(profile)
	must(t, err)
	if len(data) < 3 || data[0] != 0x1f || data[1] != 0x8b { // gzip, RFC 1952 section 2.3.1
		t.Fatalf("%d bytes of CPU profile, not compressed as pprof's are", len(data))
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Log("no go here: the profile was not read by go tool pprof")
		return
	}
	out, err := exec.Command(goTool, "tool", "pprof", "-top", "-cum", world.lucid, profile).CombinedOutput()
	if err != nil {
		t.Fatalf("go tool pprof: %v\n%s", err, out)
	}
	wantContains(t, string(out), "vmm.(*vcpu)") // where most of the time goes, so that 100 samples a second cannot miss it
}

// checkHistogram adds up the parts of the first histogram.
func checkHistogram(t *testing.T, text string) {
	t.Helper()
	var sum, parts uint64
	if _, err := fmt.Sscanf(text, "%d exits to user space", &sum); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	section, _, _ := strings.Cut(text, "instructions finished")
	for _, m := range regexp.MustCompile(`(?m)^ +(\d+) +[0-9.]+ %  [a-z]`).FindAllStringSubmatch(section, -1) {
		n, err := strconv.ParseUint(m[1], 10, 64)
		must(t, err)
		parts += n
	}
	if sum == 0 || parts != sum {
		t.Errorf("the parts add up to %d, the sum says %d:\n%s", parts, sum, text)
	}
	wantContains(t, section, "mmio")
}
