package sandbox

import (
	"encoding/json"
	"reflect"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/wire"
)

// guestSpec is what the agent acts on of a config.json. It shares memory with spec.
func guestSpec(spec *specs.Spec) *wire.Spec {
	guest := new(wire.Spec)
	copySpec(reflect.ValueOf(guest).Elem(), reflect.ValueOf(spec).Elem())
	return guest
}

// copySpec fills to, a type of package wire, from a type of specs: the fields of a struct
// by their names. A way over JSON took a thirtieth of a start from a template.
func copySpec(to, from reflect.Value) {
	switch {
	case from.CanConvert(to.Type()) && to.Kind() != reflect.Struct:
		to.Set(from.Convert(to.Type()))
	case to.Kind() == reflect.Struct:
		for i := range to.NumField() {
			copySpec(to.Field(i), from.FieldByName(to.Type().Field(i).Name))
		}
	case from.IsNil(): // a pointer, a slice or a map
	case to.Kind() == reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		copySpec(to.Elem(), from.Elem())
	case to.Kind() == reflect.Slice:
		to.Set(reflect.MakeSlice(to.Type(), from.Len(), from.Len()))
		for i := range from.Len() {
			copySpec(to.Index(i), from.Index(i))
		}
	default:
		to.Set(reflect.MakeMapWithSize(to.Type(), from.Len()))
		for it := from.MapRange(); it.Next(); {
			value := reflect.New(to.Type().Elem()).Elem()
			copySpec(value, it.Value())
			to.SetMapIndex(it.Key(), value)
		}
	}
}

// hookState is what the guest's hooks read, but for the pid; nil without any.
func (c *container) hookState() ([]byte, error) {
	if c.plan.State == nil {
		return nil, nil
	}
	state := *c.plan.State
	state.ID, state.Status = c.id, specs.StateCreated
	return json.Marshal(&state)
}
