package console

import (
	"encoding/binary"
	"errors"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// Control events, virtio 1.2 §5.3.6.2.
const (
	eventDeviceReady = 0 // from the guest
	eventPortAdd     = 1 // to the guest
	eventPortReady   = 3 // from the guest
	eventConsolePort = 4 // to the guest
	eventPortOpen    = 6 // both ways
	eventPortName    = 7 // to the guest

	controlSize = 8 // struct virtio_console_control: le32 id, le16 event, le16 value
)

// What is due to be told to the guest about a port. A set of flags instead of a
// queue of messages: a guest that asks for ever and never takes an answer costs
// nothing. The order of the bits is the order of the messages, which Linux needs
// (the name must come before a program can find the port and see it open).
const (
	dueAdd = 1 << iota
	dueConsole
	dueName
	dueClose
	dueOpen
)

// control is the control state of one port.
type control struct {
	name     string
	hostOpen bool
	ready    bool // the guest has said PORT_READY since activation
	due      uint
}

var errControlBuffer = errors.New("control buffer too small")

// handleControl takes one message of the guest. Linux spins until it is pushed,
// so what it says has happened when the guest goes on.
func (d *Device) handleControl(q *virtq.Queue, c *virtq.Chain) error {
	var msg [controlSize]byte
	if c.ReadAt(msg[:], 0) == controlSize {
		id := binary.LittleEndian.Uint32(msg[0:])
		event := binary.LittleEndian.Uint16(msg[4:])
		value := binary.LittleEndian.Uint16(msg[6:])
		if err := d.event(id, event, value); err != nil {
			return err
		}
	}
	return q.Push(c, 0)
}

// event acts on a message. One that makes no sense is ignored.
func (d *Device) event(id uint32, event, value uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if event == eventDeviceReady {
		if value != 1 {
			return nil // the driver could not set itself up
		}
		for i := range d.ctls {
			d.ctls[i].due |= dueAdd
		}
		return d.flushControl()
	}
	if id >= uint32(len(d.ctls)) {
		return nil
	}
	switch event {
	case eventPortReady:
		d.portReady(id, value == 1)
		return d.flushControl()
	case eventPortOpen:
		if id > 0 {
			return d.ports[id-1].guestOpened(value != 0)
		}
	}
	return nil
}

// portReady answers the guest's announcement that it knows a port.
func (d *Device) portReady(id uint32, ok bool) {
	c := &d.ctls[id]
	c.ready = ok
	if !ok {
		return
	}
	if id == 0 {
		c.due |= dueConsole
	} else {
		c.due |= dueName
	}
	if c.hostOpen {
		c.due |= dueOpen
	}
}

// setHostOpen tells the guest that the host end of a port was opened or closed.
// Mu is held. A close that was not told yet is told before a new open, so that
// the guest sees the edge.
func (d *Device) setHostOpen(id int, open bool) {
	c := &d.ctls[id]
	c.hostOpen = open
	if !c.ready {
		return // PORT_READY will ask
	}
	if open {
		c.due |= dueOpen
	} else {
		c.due = c.due&^dueOpen | dueClose
	}
	if err := d.flushControl(); err != nil && d.fail != nil && !errors.Is(err, virtq.ErrStopped) {
		d.fail(err)
	}
}

// flushControl sends what is due as far as the guest has posted buffers, and
// asks for a kick if it has posted too few. Mu is held.
func (d *Device) flushControl() error {
	if d.ctlRX == nil {
		return nil
	}
	defer d.ctlRX.Notify()
	for id := range d.ctls {
		for bit := uint(dueAdd); d.ctls[id].due != 0; bit <<= 1 {
			if d.ctls[id].due&bit == 0 {
				continue
			}
			sent, err := d.sendControl(uint32(id), bit)
			if err != nil || !sent {
				return err
			}
			d.ctls[id].due &^= bit
		}
	}
	return nil
}

func (d *Device) sendControl(id uint32, bit uint) (bool, error) {
	c, err := d.popControl()
	if err != nil || c == nil {
		return false, err
	}
	var msg [controlSize + maxName]byte
	n := controlSize
	event, value := uint16(0), uint16(1)
	switch bit {
	case dueAdd:
		event = eventPortAdd
	case dueConsole:
		event = eventConsolePort
	case dueName:
		event = eventPortName
		n += copy(msg[controlSize:], d.ctls[id].name)
	case dueClose:
		event, value = eventPortOpen, 0
	case dueOpen:
		event = eventPortOpen
	}
	binary.LittleEndian.PutUint32(msg[0:], id)
	binary.LittleEndian.PutUint16(msg[4:], event)
	binary.LittleEndian.PutUint16(msg[6:], value)
	if c.WriteAt(msg[:n], 0) < n {
		return false, errControlBuffer
	}
	return true, d.ctlRX.Push(c, uint32(n))
}

func (d *Device) popControl() (*virtq.Chain, error) {
	c, err := d.ctlRX.Pop()
	if err != nil || c != nil {
		return c, err
	}
	if !d.ctlRX.EnableKicks() {
		return nil, nil
	}
	d.ctlRX.DisableKicks()
	return d.ctlRX.Pop()
}

// routineControlRX sends what is due when the guest posts buffers.
func (d *Device) routineControlRX(q *virtq.Queue) error {
	for {
		if err := q.Wait(); err != nil {
			return err
		}
		d.mu.Lock()
		err := d.flushControl()
		d.mu.Unlock()
		if err != nil {
			return err
		}
	}
}
