package sandbox

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/filltest"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// TestPlanOf: a plan says the same in both of its forms, one with everything and one with next to nothing.
func TestPlanOf(t *testing.T) {
	var all oci.Plan
	n := 0
	filltest.Fill(reflect.ValueOf(&all).Elem(), &n)
	g := &all.Guest // of other systems no plan has anything, and some of it can have any type
	g.Solaris, g.Windows, g.VM, g.ZOS, g.FreeBSD = nil, nil, nil, nil, nil
	for name, plan := range map[string]*oci.Plan{"all": &all, "none": {VM: oci.VM{VCPUs: 1}}} {
		text, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := wire.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		want, err := planOf(&control.Launch{Plan: text})
		if err != nil {
			t.Fatal(err)
		}
		got, err := planOf(&control.Launch{Packed: packed})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-JSON +packed):\n%s", name, d)
		}
	}
}

// TestPlanOfRubbish: a plan that is cut short, or none, is an error.
func TestPlanOfRubbish(t *testing.T) {
	packed, err := wire.Marshal(&oci.Plan{VM: oci.VM{Transport: oci.TransportVsock}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range packed {
		if _, err := planOf(&control.Launch{Packed: packed[:n]}); err == nil {
			t.Errorf("%d of %d bytes are a plan", n, len(packed))
		}
	}
	if _, err := planOf(&control.Launch{Plan: json.RawMessage("{")}); err == nil {
		t.Error("half a JSON object is a plan")
	}
}
