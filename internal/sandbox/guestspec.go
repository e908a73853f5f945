package sandbox

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/wire"
)

// guestSpec is what the agent acts on of a config.json.
func guestSpec(spec *specs.Spec) (*wire.Spec, error) {
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	guest := new(wire.Spec)
	return guest, json.Unmarshal(data, guest)
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
