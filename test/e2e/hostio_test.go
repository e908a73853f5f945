//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestHostIO: linux.resources.blockIO is a limit of the sandbox process's cgroup, which is gone with the container.
func TestHostIO(t *testing.T) {
	devices, err := filepath.Glob("/sys/block/*/dev")
	must(t, err)
	if len(devices) == 0 {
		t.Fatal("this host has no block device to name")
	}
	var major, minor int64
	text, err := os.ReadFile(devices[0])
	must(t, err)
	_, err = fmt.Sscanf(string(text), "%d:%d", &major, &minor)
	must(t, err)
	b := newBundle(t, "true")
	b.spec.Linux.CgroupsPath = "/lucid-io/" + b.id
	limit := specs.LinuxThrottleDevice{Rate: 1 << 20}
	limit.Major, limit.Minor = major, minor
	b.spec.Linux.Resources = &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{limit}}}
	b.write()
	leave(t, "create", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id) })
	dir := filepath.Join("/sys/fs/cgroup/lucid-io", b.id)
	got, err := os.ReadFile(filepath.Join(dir, "io.max"))
	must(t, err)
	wantContains(t, string(got), fmt.Sprintf("%d:%d rbps=1048576 ", major, minor))
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
	_ = os.Remove(filepath.Dir(dir))

	// What cannot be is an error, and nothing is left.
	limit.Major = 4000
	b.spec.Linux.Resources.BlockIO.ThrottleReadBpsDevice[0] = limit
	r := b.run(nil)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "linux.resources.blockIO", "4000:")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
	_ = os.Remove(filepath.Dir(dir))
}
