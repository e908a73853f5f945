package sandbox

import (
	"encoding/json"
	"fmt"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// planOf reads the plan of a launch in the form that it has.
func planOf(l *control.Launch) (*oci.Plan, error) {
	p := new(oci.Plan)
	var err error
	if len(l.Packed) > 0 {
		err = wire.Unmarshal(l.Packed, p)
	} else {
		err = json.Unmarshal(l.Plan, p)
	}
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}
