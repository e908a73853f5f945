package rng

import (
	"errors"

	"github.com/lucid-containers/lucid/devices/virtio"
)

var _ virtio.Stateful = (*Device)(nil)

// Freeze implements virtio.Stateful. There is no state: each request is answered
// with new bytes of the host. A guest that was saved with bytes it has not used
// yet shares them with its clones, so each is given entropy of its own after
// Thaw (wire.Adopt).
func (d *Device) Freeze() ([]byte, error) {
	d.q.Freeze()
	d.wg.Wait() // at most what a full bucket makes a request wait: 4 ms
	return nil, nil
}

// Thaw implements virtio.Stateful.
func (d *Device) Thaw(state []byte) error {
	if len(state) != 0 {
		return errors.New("virtio-rng has no state")
	}
	return nil
}
