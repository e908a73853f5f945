package oci

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestGuestResources: what docker update sends for one changed limit.
func TestGuestResources(t *testing.T) {
	for in, want := range map[string]string{
		`{"memory":{"limit":0,"reservation":0,"kernel":0},"cpu":{"shares":0,"cpus":"","mems":""},"pids":{"limit":77}}`: `{"memory":{},"cpu":{},"pids":{"limit":77}}`,
		`{"memory":{"limit":5,"swap":-1},"cpu":{"shares":1,"quota":-1,"period":9,"cpus":"0-3","mems":"0"}}`:            `{"memory":{"limit":5},"cpu":{"shares":1,"quota":-1,"period":9}}`,
		`{"blockIO":{"weight":3},"pids":{"limit":0}}`:                                                                  `{"pids":{}}`,
		`{}`: `{}`,
	} {
		var r specs.LinuxResources
		if err := json.Unmarshal([]byte(in), &r); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(GuestResources(&r))
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
}
