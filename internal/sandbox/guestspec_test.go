package sandbox

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/filltest"
	"github.com/lucid-containers/lucid/internal/wire"
)

// TestGuestSpec: what the guest gets is what JSON would carry over, of a config.json with everything and of one with nothing.
func TestGuestSpec(t *testing.T) {
	var all specs.Spec
	n := 0
	filltest.Fill(reflect.ValueOf(&all).Elem(), &n)
	for name, spec := range map[string]*specs.Spec{"all": &all, "none": {}} {
		data, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		want := new(wire.Spec)
		if err := json.Unmarshal(data, want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, guestSpec(spec)); d != "" {
			t.Errorf("%s (-JSON +guestSpec):\n%s", name, d)
		}
		if name == "all" && (want.Process == nil || want.Linux.Resources.CPU.Idle == nil || want.Linux.Devices[1].FileMode == nil) {
			t.Errorf("the test's config.json is not full: %+v", want)
		}
	}
}
