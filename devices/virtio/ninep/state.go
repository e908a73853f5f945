package ninep

import (
	"errors"

	"github.com/lucid-containers/lucid/devices/virtio"
)

var (
	_ virtio.Stateful = (*Device)(nil)
	_ virtio.Kicked   = (*Device)(nil)
)

var errInUse = errors.New("virtio-9p: the guest has used the file server, whose session cannot be saved")

// Freeze implements virtio.Stateful. It saves a guest that has not spoken 9P yet
// and refuses any other: the fids of a session are descriptors of this process.
//
// A checkpoint of a running container extends it here: the session hands over,
// per fid, the export, the names from its root (which it would have to keep, or
// read back from /proc/self/fd), the kind of file (device, inode, birth), open
// flags and locks; Thaw has the new session open them again, beneath the export's
// root and without following links, and refuses a file that is not the same.
// Requests under way are finished by Freeze already.
func (d *Device) Freeze() ([]byte, error) {
	r := d.run.Load()
	r.q.Freeze()
	r.end() // finishes what was popped
	s, err := r.q.State()
	if err != nil {
		return nil, err
	}
	if s.Next != 0 {
		return nil, errInUse
	}
	return nil, nil
}

// Thaw implements virtio.Stateful.
func (d *Device) Thaw(state []byte) error {
	if len(state) != 0 {
		return errors.New("virtio-9p has no state that can be restored")
	}
	return nil
}
