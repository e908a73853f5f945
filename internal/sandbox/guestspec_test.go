package sandbox

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/wire"
)

// fill sets all of v, other than what Linux containers do not have.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			switch v.Type().Field(i).Name {
			case "Windows", "Solaris", "VM", "ZOS", "FreeBSD":
			default:
				fill(v.Field(i))
			}
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(v.Type().Name() + "!")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(-7)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	}
}

// TestGuestSpec: what the guest gets is what JSON would carry over, of a config.json with everything and of one with nothing.
func TestGuestSpec(t *testing.T) {
	var all specs.Spec
	fill(reflect.ValueOf(&all).Elem())
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
		if name == "all" && (want.Process == nil || want.Linux.Resources.CPU.Idle == nil || *want.Linux.Devices[1].FileMode != 7) {
			t.Errorf("the test's config.json is not full: %+v", want)
		}
	}
}
