package systemd

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNewScope(t *testing.T) {
	for path, want := range map[string][2]string{
		"":                               {"system.slice", "lucid-c1.scope"},
		"system.slice:docker:abc":        {"system.slice", "docker-abc.scope"},
		":docker:abc":                    {"system.slice", "docker-abc.scope"},
		"a-b.slice:cri:x":                {"a-b.slice", "cri-x.scope"},
		"-.slice::x":                     {"-.slice", "x.scope"},
		"user.slice:x:deep.slice":        {"user.slice", "deep.slice"},
		"machine.slice:libpod:0123abcde": {"machine.slice", "libpod-0123abcde.scope"},
	} {
		s, err := NewScope(path, "c1", "token", false, 1)
		if err != nil {
			t.Errorf("%q: %v", path, err)
		} else if got := [2]string{s.Slice, s.Unit}; got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]string{
		"/docker/abc":        `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/docker/abc" instead`,
		"a:b:c:d":            "expected cgroupsPath",
		"noslice:docker:abc": "invalid slice name: noslice",
		".slice:docker:abc":  "invalid slice name: .slice",
		"a--b.slice:x:y":     "invalid slice name: a--b.slice",
		"-a.slice:x:y":       "invalid slice name: -a.slice",
		"a/b.slice:x:y":      "invalid slice name: a/b.slice",
		"a.slice:docker:":    "has no name",
	} {
		if _, err := NewScope(path, "c1", "token", false, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", path, err, want)
		}
	}
	if s, err := NewScope("", "c1", "token", true, 1); err != nil || s.Slice != "user.slice" || !s.User {
		t.Errorf("a user's: %+v, %v", s, err)
	}
}

func TestIsScopePath(t *testing.T) {
	for path, want := range map[string]bool{
		"": false, "/kubepods/x": false, "a:b:c": false, "x.slice:cri:abc": true, "x.slice:cri:a/b": false, "x.slice:cri": false,
	} {
		if IsScopePath(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
}

func p[T any](v T) *T { return &v }

func TestLimits(t *testing.T) {
	const vm = 192 << 20
	most := func(n uint64) uint64 { return n + 64<<20 + n/64 }
	for name, c := range map[string]struct {
		r       specs.LinuxResources
		v1      bool
		version int
		want    map[string]any
	}{
		"nothing": {want: map[string]any{}},
		"zeros are no limits": {r: specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: p(int64(0)), Swap: p(int64(0))}, Pids: &specs.LinuxPids{Limit: p(int64(0))},
			CPU: &specs.LinuxCPU{Shares: p(uint64(0)), Quota: p(int64(0)), Period: p(uint64(0))},
		}, want: map[string]any{}},
		"below the VM": {
			r:    specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(64 << 20)), Reservation: p(int64(32 << 20)), Swap: p(int64(128 << 20))}},
			want: map[string]any{"MemoryMax": most(vm), "MemoryLow": uint64(32 << 20), "MemorySwapMax": uint64(64 << 20)},
		},
		"above the VM": {
			r:    specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(1 << 30)), Swap: p(int64(-1))}},
			want: map[string]any{"MemoryMax": most(1 << 30), "MemorySwapMax": uint64(math.MaxUint64)},
		},
		"none": {
			r:    specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(-1))}, Pids: &specs.LinuxPids{Limit: p(int64(-1))}},
			want: map[string]any{"MemoryMax": uint64(math.MaxUint64), "TasksMax": uint64(math.MaxUint64)},
		},
		"v1": {
			r: specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: p(int64(1 << 30)), Swap: p(int64(2 << 30)), Reservation: p(int64(5))},
				CPU:    &specs.LinuxCPU{Shares: p(uint64(512)), Cpus: "0"}, Pids: &specs.LinuxPids{Limit: p(int64(10))},
			}, v1: true,
			want: map[string]any{"MemoryLimit": most(1 << 30), "CPUShares": uint64(512), "TasksMax": uint64(10 + tasksOverhead)},
		},
		"CPU": {
			r:    specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: p(uint64(1024)), Quota: p(int64(50000)), Period: p(uint64(100000)), Cpus: "0-1,9", Mems: "0"}},
			want: map[string]any{"CPUWeight": uint64(39), "CPUQuotaPerSecUSec": uint64(500000), "CPUQuotaPeriodUSec": uint64(100000), "AllowedCPUs": []byte{3, 2}, "AllowedMemoryNodes": []byte{1}},
		},
		"an old systemd": {
			r:       specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: p(int64(1)), Quota: p(int64(-1)), Period: p(uint64(100000)), Cpus: "0"}},
			version: 230, want: map[string]any{"CPUQuotaPerSecUSec": uint64(math.MaxUint64)},
		},
		"idle": {r: specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: p(int64(1)), Shares: p(uint64(5))}}, want: map[string]any{"CPUWeight": uint64(0)}},
	} {
		if c.version == 0 {
			c.version = 252
		}
		props, err := limits(&c.r, vm, !c.v1, c.version)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, values(props)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, list := range []string{"x", "3-1", "0-9999", "-1", ",", "4294967296"} {
		if props, err := limits(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: list}}, vm, true, 252); err == nil || !strings.Contains(err.Error(), "linux.resources.cpu.cpus") {
			t.Errorf("cpus %q: %v, %v", list, props, err)
		}
	}
}

func values(props []dbus.Property) map[string]any {
	m := map[string]any{}
	for _, p := range props {
		m[p.Name] = p.Value.Value()
	}
	return m
}

// TestPerSecond: whole percents, rounded up, and nothing overflows.
func TestPerSecond(t *testing.T) {
	for _, c := range []struct {
		quota        int64
		period, want uint64
	}{
		{-1, 0, math.MaxUint64},
		{0, 100000, math.MaxUint64},
		{100000, 0, 1000000},
		{150000, 100000, 1500000},
		{1, 100000, 10000},
		{12345, 100000, 130000},
		{math.MaxInt64, 1, math.MaxUint64},
		{math.MaxInt64, 1000000, math.MaxInt64 + 10000 - math.MaxInt64%10000},
	} {
		if got := perSecond(c.quota, c.period); got != c.want {
			t.Errorf("%d per %d: %d, want %d", c.quota, c.period, got, c.want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	props, err := fromAnnotations(map[string]string{
		"org.systemd.property.TimeoutStopUSec": "uint64 123456789", "org.systemd.property.CollectMode": "'inactive-or-failed'",
		"org.systemd.property.RuntimeMaxSec": "1.5", "something.else": "x", "org.systemd.property.After": "['a.service', 'b.service']",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := values(props)
	want := map[string]any{
		"TimeoutStopUSec": uint64(123456789), "CollectMode": "inactive-or-failed", "RuntimeMaxUSec": uint64(1500000),
		"After": []string{"a.service", "b.service"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if names := slices.Sorted(maps.Keys(got)); len(names) != 4 {
		t.Errorf("%v", names)
	}
	for key, text := range map[string]string{
		"org.systemd.property.": "1", "org.systemd.property.A": "1", "org.systemd.property.No-Name": "1", "org.systemd.property.Slice": "[",
		"org.systemd.property.TimeoutStopSec": "'soon'", "org.systemd.property.RuntimeMaxSec": "-1.0",
	} {
		if props, err := fromAnnotations(map[string]string{key: text}); err == nil {
			t.Errorf("%s=%s: %v", key, text, props)
		}
	}
}
