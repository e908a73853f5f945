package balloon

import (
	"errors"

	"github.com/lucid-containers/lucid/devices/virtio"
)

var _ virtio.Stateful = (*Device)(nil)

// Freeze implements virtio.Stateful. There is no state: a report is answered
// when its pages are gone, and what has been given back is the host's.
func (d *Device) Freeze() ([]byte, error) {
	for _, q := range d.queues {
		if q != nil {
			q.Freeze()
		}
	}
	d.wg.Wait()
	return nil, nil
}

// Thaw implements virtio.Stateful.
func (d *Device) Thaw(state []byte) error {
	if len(state) != 0 {
		return errors.New("virtio-balloon has no state")
	}
	return nil
}
