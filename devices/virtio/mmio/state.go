package mmio

import (
	"errors"
	"fmt"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/internal/vmstate"
)

// State is what a saved device is: the registers as the driver left them, where
// its queues stand, and what the device itself adds.
type State struct {
	Type       uint32
	DevSel     uint32 // DeviceFeaturesSel
	DrvSel     uint32 // DriverFeaturesSel
	Features   uint64 // accepted by the driver
	QueueSel   uint32
	Status     uint32
	IntStatus  uint32
	Generation uint32
	Queues     []QueueState
	Device     []byte // of virtio.Stateful.Freeze; empty unless DRIVER_OK
}

// QueueState is one queue: what the driver wrote, and how far the device is.
type QueueState struct {
	Num               uint32
	Ready             bool
	Desc, Avail, Used uint64
	At                virtq.State
}

// Bounds on what is decoded.
const (
	maxQueues      = 64 // of one device: a console with 30 ports has 64
	maxDeviceState = 64 << 10
	queueStateSize = 4 + 1 + 3*8 + 4*2 // bytes of an encoded QueueState
)

// Save freezes the device and returns its state. Preconditions: the vCPUs stand
// still. The transport is good for nothing but Close afterwards.
func (t *Transport) Save() (*State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy() || t.closed {
		return nil, errors.New("virtio device is being reset")
	}
	s := &State{
		Type: t.dev.Type(), DevSel: t.devSel, DrvSel: t.drvSel, Features: t.drvFeat, QueueSel: t.queueSel,
	}
	for i := range t.queues {
		r := &t.queues[i]
		s.Queues = append(s.Queues, QueueState{Num: r.num, Ready: r.ready, Desc: r.desc, Avail: r.avail, Used: r.used})
	}
	if t.act != nil {
		if err := t.freeze(s); err != nil {
			return nil, err
		}
	}
	// Last: a device that was finishing a request interrupted the driver.
	s.Status, s.IntStatus, s.Generation = t.Status(), t.intStatus.Load(), t.generation.Load()
	if s.Status&(statusNeedsReset|statusFailed) != 0 {
		return nil, fmt.Errorf("virtio device has failed (status %#x)", s.Status)
	}
	return s, nil
}

// freeze stops the active device. Mu is held.
func (t *Transport) freeze(s *State) error {
	dev, ok := t.dev.(virtio.Stateful)
	if !ok {
		return errors.New("virtio device cannot be saved")
	}
	var err error
	if s.Device, err = dev.Freeze(); err != nil {
		return err
	}
	for i, q := range t.act.queues {
		if q == nil {
			continue
		}
		if s.Queues[i].At, err = q.State(); err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	return nil
}

// Restore makes a transport in reset what s says, and its device active if it
// was. The driver is interrupted again if it had not acknowledged: the
// interrupt may have been on its way when the VM was saved. The state is checked
// as a driver's writes are.
func (t *Transport) Restore(s *State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.busy() || t.closed || t.Status() != 0:
		return errors.New("virtio device is in use")
	case s.Type != t.dev.Type():
		return fmt.Errorf("saved virtio device has type %d, this one %d", s.Type, t.dev.Type())
	case len(s.Queues) != len(t.queues):
		return fmt.Errorf("saved virtio device has %d queues, this one %d", len(s.Queues), len(t.queues))
	case s.Status&^(statusAcknowledge|statusDriver|statusDriverOK|statusFeaturesOK) != 0:
		return fmt.Errorf("saved virtio device has status %#x", s.Status)
	case s.IntStatus&^(intUsed|intConfig) != 0:
		return fmt.Errorf("saved virtio device has interrupt status %#x", s.IntStatus)
	}
	t.devSel, t.drvSel, t.drvFeat, t.queueSel = s.DevSel, s.DrvSel, s.Features, s.QueueSel
	for i, q := range s.Queues {
		r := &t.queues[i]
		r.num, r.ready, r.desc, r.avail, r.used = q.Num, q.Ready, q.Desc, q.Avail, q.Used
	}
	t.generation.Store(s.Generation)
	t.intStatus.Store(s.IntStatus)
	t.statusMu.Lock()
	t.status = s.Status
	t.statusMu.Unlock()
	if err := t.thaw(s); err != nil {
		return err
	}
	if s.IntStatus != 0 {
		_ = t.irq.Signal() // fails only after Close
	}
	return nil
}

// thaw brings the device back. Mu is held.
func (t *Transport) thaw(s *State) error {
	if s.Status&statusFeaturesOK != 0 && !t.featuresOK() {
		return fmt.Errorf("saved virtio device has features %#x, this one offers %#x", s.Features, t.features)
	}
	if s.Status&statusDriverOK == 0 {
		return nil
	}
	if s.Status&statusFeaturesOK == 0 {
		return fmt.Errorf("saved virtio device has status %#x", s.Status)
	}
	dev, ok := t.dev.(virtio.Stateful)
	if !ok {
		return errors.New("virtio device cannot be restored")
	}
	if err := dev.Thaw(s.Device); err != nil {
		return err
	}
	at := make([]virtq.State, len(s.Queues))
	for i, q := range s.Queues {
		at[i] = q.At
	}
	return t.activate(at)
}

// Encode appends the state to w.
func (s *State) Encode(w *vmstate.Writer) {
	for _, v := range []uint32{s.Type, s.DevSel, s.DrvSel, s.QueueSel, s.Status, s.IntStatus, s.Generation} {
		w.U32(v)
	}
	w.U64(s.Features)
	w.U32(uint32(len(s.Queues)))
	for _, q := range s.Queues {
		w.U32(q.Num)
		w.Bool(q.Ready)
		w.U64(q.Desc)
		w.U64(q.Avail)
		w.U64(q.Used)
		w.Struct(q.At)
	}
	w.Bytes(s.Device)
}

// Decode reads what Encode wrote; r has the error, if any.
func Decode(r *vmstate.Reader) *State {
	s := &State{}
	for _, p := range []*uint32{&s.Type, &s.DevSel, &s.DrvSel, &s.QueueSel, &s.Status, &s.IntStatus, &s.Generation} {
		*p = r.U32()
	}
	s.Features = r.U64()
	s.Queues = make([]QueueState, r.Count(maxQueues, queueStateSize))
	for i := range s.Queues {
		q := &s.Queues[i]
		q.Num, q.Ready = r.U32(), r.Bool()
		q.Desc, q.Avail, q.Used = r.U64(), r.U64(), r.U64()
		r.Struct(&q.At)
	}
	s.Device = r.Bytes(maxDeviceState)
	return s
}
