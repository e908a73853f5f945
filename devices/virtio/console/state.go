package console

import (
	"errors"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/internal/vmstate"
)

var _ virtio.Stateful = (*Device)(nil)

var errUnread = errors.New("virtio-console: what the guest sent on a port was not read yet")

// Freeze implements virtio.Stateful. It saves which ports the guest knows and
// has open, and what it is still to be told. Bytes under way stay where they
// are: those of the guest in its ring if nobody has taken them, else nothing is
// saved. Console output so far belongs to this process.
func (d *Device) Freeze() ([]byte, error) {
	d.mu.Lock()
	for _, q := range d.queues {
		if q != nil {
			q.Freeze()
		}
	}
	d.mu.Unlock()
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	var w vmstate.Writer
	w.U32(uint32(len(d.ctls)))
	for i := range d.ctls {
		w.Bool(d.ctls[i].ready)
		w.U8(uint8(d.ctls[i].due))
	}
	for _, p := range d.ports {
		p.mu.Lock()
		unread := len(p.pending) > 0
		w.Bool(p.guestOpen)
		p.mu.Unlock()
		if unread {
			return nil, errUnread
		}
	}
	return w.Data(), nil
}

// Thaw implements virtio.Stateful. The host's ends may be open already: the
// guest is told then.
func (d *Device) Thaw(state []byte) error {
	r := vmstate.NewReader(state)
	if n := r.Count(len(d.ctls), 2); r.Err() == nil && n != len(d.ctls) {
		r.Fail("virtio-console of %d ports, this one has %d", n, len(d.ctls))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.ctls {
		c := &d.ctls[i]
		c.ready, c.due = r.Bool(), uint(r.U8())
		if c.due >= dueOpen<<1 {
			r.Fail("virtio-console: events %#x", c.due)
		}
		if c.ready && i > 0 && c.hostOpen {
			c.due |= dueOpen
		}
	}
	for _, p := range d.ports {
		p.mu.Lock()
		p.guestOpen = r.Bool()
		p.mu.Unlock()
	}
	return r.Done()
}
