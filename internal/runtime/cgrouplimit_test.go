package runtime

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const someIO = `{
	"weight": 500, "weightDevice": [{"major": 8, "minor": 16, "weight": 1000}, {"major": 8, "minor": 32, "leafWeight": 10}],
	"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}], "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
	"throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 7}], "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 9}]
}`

func blockIO(t *testing.T) *specs.LinuxBlockIO {
	t.Helper()
	b := new(specs.LinuxBlockIO)
	if err := json.Unmarshal([]byte(someIO), b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIOSettings(t *testing.T) {
	limits := []setting{
		{"io.max", "8:0 rbps=1048576"},
		{"io.max", "8:0 wbps=max"},
		{"io.max", "8:1 riops=7"},
		{"io.max", "8:1 wiops=9"},
	}
	for bfq, weights := range map[bool][]setting{
		false: {{"io.weight", "4950"}, {"io.weight", "8:16 10000"}},
		true:  {{"io.bfq.weight", "500"}, {"io.bfq.weight", "8:16 1000"}},
	} {
		if got, want := ioSettings(blockIO(t), bfq), append(weights, limits...); !slices.Equal(got, want) {
			t.Errorf("bfq %v: %v, want %v", bfq, got, want)
		}
	}
}

func TestLimitIO(t *testing.T) {
	dir := t.TempDir()
	c := &cgroups{v2: true, all: []hierarchy{{target: dir}}}
	if err := c.limitIO(nil); err != nil {
		t.Error(err)
	}
	if err := c.limitIO(blockIO(t)); err == nil || !strings.Contains(err.Error(), "io.weight") {
		t.Errorf("without the controller: %v", err)
	}
	for _, name := range []string{"io.weight", "io.max"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.limitIO(blockIO(t)); err != nil {
		t.Error(err)
	}
	// The last write of each: these are files and not a cgroup's.
	for name, want := range map[string]string{"io.weight": "8:16 10000", "io.max": "8:1 wiops=9"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.HasPrefix(string(data), want) {
			t.Errorf("%s: %q, %v, want %s", name, data, err, want)
		}
	}
	for _, c := range []*cgroups{{}, {all: []hierarchy{{target: dir}}}} {
		if err := c.limitIO(blockIO(t)); !errors.Is(err, errNoIO) {
			t.Errorf("no cgroup v2: %v", err)
		}
	}
}

func TestLimitCPUs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cpus := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}}
	for name, c := range map[string]*cgroups{
		"v2": cgroupsAt(map[string]string{"": dir}),
		"v1": cgroupsAt(map[string]string{"cpu,cpuacct": "/no/such", "cpuset": dir}),
	} {
		if err := c.limit(cpus); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for file, want := range map[string]string{"cpuset.cpus": "0-1", "cpuset.mems": "0"} {
			if data, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(data) != want {
				t.Errorf("%s: %s: %q, %v", name, file, data, err)
			}
			if err := os.Truncate(filepath.Join(dir, file), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]*cgroups{
		"no cgroup": cgroupsAt(nil), "no controller": cgroupsAt(map[string]string{"": t.TempDir()}), "not mounted": cgroupsAt(map[string]string{"cpu": dir}),
	} {
		if err := c.limit(cpus); !errors.Is(err, errNoCpuset) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.limit(&specs.LinuxResources{CPU: &specs.LinuxCPU{}}); err != nil {
			t.Errorf("%s, no limit: %v", name, err)
		}
	}
}
