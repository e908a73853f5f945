//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/bench"
	"github.com/lucid-containers/lucid/internal/control"
)

// TestExitsHeld: a boot leaves guest mode no more often than bench/limits.txt says, and 2 %. In the lab the number is exact; a KVM that
// needs assists has exits of its own.
func TestExitsHeld(t *testing.T) {
	limits, err := bench.Limits("exits")
	must(t, err)
	b := newBundle(t, "true")
	b.write()
	lucid(t, nil, "run", "--keep", "--bundle", b.dir, b.id).wantCode(t, 0)
	defer lucid(t, nil, "delete", b.id)
	data, err := os.ReadFile(filepath.Join(world.state, b.id, control.TimelineFile))
	must(t, err)
	var tl control.Timeline
	must(t, json.Unmarshal(data, &tl))
	sum := 0.0
	for _, n := range tl.HelloExits {
		sum += float64(n)
	}
	complaints, news := bench.Check([]bench.Result{{Case: "boot", Metric: bench.HelloExits, Unit: "exits", Values: []float64{sum}}}, limits)
	for _, line := range complaints {
		t.Error(line)
	}
	t.Log(tl.HelloExits, tl.Exits, news)
}
