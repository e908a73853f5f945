package systemd

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// AnnotationPrefix begins an annotation that sets a property of the unit, its
// value in GVariant's text form: runc's, which podman and cri-o use.
const AnnotationPrefix = "org.systemd.property."

func fromAnnotations(annotations map[string]string) ([]dbus.Property, error) {
	var props []dbus.Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, AnnotationPrefix)
		if !ok {
			continue
		}
		if !isPropertyName(name) {
			return nil, fmt.Errorf("annotations[%s]: not the name of a property", key)
		}
		v, err := godbus.ParseVariant(annotations[key], godbus.Signature{})
		if err != nil {
			return nil, fmt.Errorf("annotations[%s]: %w", key, err)
		}
		if base, ok := strings.CutSuffix(name, "Sec"); ok && base[len(base)-1] >= 'a' && base[len(base)-1] <= 'z' {
			// In unit files seconds, over D-Bus microseconds: TimeoutStopSec, TimeoutStopUSec.
			name = base + "USec"
			if v, err = microseconds(v); err != nil {
				return nil, fmt.Errorf("annotations[%s]: %w", key, err)
			}
		}
		props = append(props, dbus.Property{Name: name, Value: v})
	}
	return props, nil
}

// isPropertyName: letters only, and at least three, as with runc.
func isPropertyName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(s) > 3
}

func microseconds(v godbus.Variant) (godbus.Variant, error) {
	const perSecond = 1000000
	var sec float64
	switch n := v.Value().(type) {
	case float64:
		sec = n
	case int32:
		sec = float64(n)
	case uint32:
		sec = float64(n)
	case int64:
		sec = float64(n)
	case uint64:
		sec = float64(n)
	default:
		return v, fmt.Errorf("%s is no number", v)
	}
	if math.IsNaN(sec) || sec < 0 || sec > math.MaxInt64/perSecond {
		return v, fmt.Errorf("%s seconds are out of range", v)
	}
	return godbus.MakeVariant(uint64(sec * perSecond)), nil
}
