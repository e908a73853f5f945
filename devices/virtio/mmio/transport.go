package mmio

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/internal/guestmem"
)

// ResetWait is how long a vCPU or Close waits for a device to stop. Devices
// stop at once unless a host file system holds a request; a guest sees the wait
// as one slow register write.
const ResetWait = 2 * time.Second

// ErrBusy says that the device did not stop within ResetWait: a goroutine of it
// may still touch guest memory, which therefore must stay mapped.
var ErrBusy = errors.New("virtio device did not stop")

// Config is what New needs.
type Config struct {
	Device virtio.Device
	Mem    *guestmem.Memory
	Kicks  []*eventfd.FD // one per queue; nil: New makes them and Close closes them
	IRQ    *eventfd.FD   // nil: New makes it and Close closes it
	Log    *slog.Logger  // nil: silent
}

// Transport is one device on the bus.
type Transport struct {
	dev      virtio.Device
	kicked   virtio.Kicked // the device, if it takes notifications itself
	config   virtio.ConfigSpace
	features uint64 // offered
	mem      *guestmem.Memory
	kicks    []*eventfd.FD
	irq      *eventfd.FD
	log      *slog.Logger
	owned    []*eventfd.FD // to close

	intStatus  atomic.Uint32
	generation atomic.Uint32

	mu        sync.Mutex    // registers; held across Activate, never taken by the device
	devSel    uint32        // protected by mu, like all to the next group
	drvSel    uint32        //
	drvFeat   uint64        //
	queueSel  uint32        //
	queues    []queueRegs   //
	act       *activation   // nil unless the device is active
	resetting chan struct{} // closed when the device has stopped; nil if no reset is under way
	closed    bool

	// statusMu is a leaf: devices take it in Fail while a vCPU may hold mu.
	statusMu sync.Mutex
	status   uint32 // protected by statusMu
}

// queueRegs is what the driver wrote for one queue. It freezes when the queue is
// ready (virtio 1.2 §4.2.3.2), and for good at DRIVER_OK.
type queueRegs struct {
	max, num          uint32
	ready             bool
	desc, avail, used uint64
}

// activation ties what a device calls back to the activation it was for, so
// that a late call cannot touch the next one.
type activation struct {
	queues []*virtq.Queue
	dead   bool // protected by Transport.statusMu
}

// New makes a transport in reset.
func New(cfg Config) (*Transport, error) {
	if cfg.Device == nil || cfg.Mem == nil {
		return nil, errors.New("virtio-mmio: no device or no memory")
	}
	sizes := cfg.Device.QueueSizes()
	t := &Transport{
		dev: cfg.Device, config: cfg.Device.Config(), mem: cfg.Mem,
		features: cfg.Device.Features() | virtio.FeatureVersion1 |
			virtio.FeatureIndirectDesc | virtio.FeatureEventIdx,
		kicks: cfg.Kicks, irq: cfg.IRQ, log: cfg.Log,
		queues: make([]queueRegs, len(sizes)),
	}
	t.kicked, _ = cfg.Device.(virtio.Kicked)
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	for i, n := range sizes {
		if n == 0 || n&(n-1) != 0 || n > virtq.MaxSize {
			return nil, fmt.Errorf("virtio-mmio: queue %d of size %d", i, n)
		}
		t.queues[i].max = uint32(n)
	}
	if cfg.Kicks != nil && len(cfg.Kicks) != len(sizes) {
		return nil, fmt.Errorf("virtio-mmio: %d kicks for %d queues", len(cfg.Kicks), len(sizes))
	}
	if err := t.makeEventfds(len(sizes)); err != nil {
		t.closeOwned()
		return nil, err
	}
	return t, nil
}

func (t *Transport) makeEventfds(queues int) error {
	own := func() (*eventfd.FD, error) {
		fd, err := eventfd.New()
		if err == nil {
			t.owned = append(t.owned, fd)
		}
		return fd, err
	}
	if t.kicks == nil {
		for range queues {
			fd, err := own()
			if err != nil {
				return err
			}
			t.kicks = append(t.kicks, fd)
		}
	}
	if t.irq != nil {
		return nil
	}
	fd, err := own()
	t.irq = fd
	return err
}

func (t *Transport) closeOwned() {
	for _, fd := range t.owned {
		_ = fd.Close()
	}
	t.owned = nil
}

// Kicks returns the eventfds that tell the device of new chains, one per queue.
// There are none if the device takes the driver's writes themselves
// (virtio.Kicked).
func (t *Transport) Kicks() []*eventfd.FD {
	if t.kicked != nil {
		return nil
	}
	return t.kicks
}

// IRQ returns the eventfd that the device interrupts the guest with.
func (t *Transport) IRQ() *eventfd.FD { return t.irq }

// Status returns the device status register, for tests and diagnosis.
func (t *Transport) Status() uint32 {
	t.statusMu.Lock()
	defer t.statusMu.Unlock()
	return t.status
}

func (t *Transport) interrupt(bit uint32) {
	t.intStatus.Or(bit)
	_ = t.irq.Signal() // fails only after Close, when nobody listens
}

// fail sets NEEDS_RESET on behalf of a device (virtio 1.2 §2.1.2).
func (t *Transport) fail(act *activation, err error) {
	t.statusMu.Lock()
	if act.dead || t.status&statusNeedsReset != 0 {
		t.statusMu.Unlock()
		return
	}
	t.status |= statusNeedsReset
	tell := t.status&statusDriverOK != 0
	t.statusMu.Unlock()
	t.log.Warn("virtio device needs reset", "type", t.dev.Type(), "error", err)
	if tell {
		t.configChanged(act)
	}
}

func (t *Transport) configChanged(act *activation) {
	t.statusMu.Lock()
	dead := act.dead
	t.statusMu.Unlock()
	if dead {
		return
	}
	t.generation.Add(1)
	t.interrupt(intConfig)
}

// Reset stops the device as a driver's reset does. ErrBusy says that it did not
// stop in time; it goes on stopping.
func (t *Transport) Reset() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reset()
}

// Close resets the device for good and closes the eventfds that New made. After
// ErrBusy guest memory must not be unmapped.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.reset()
	if !t.closed {
		t.closed = true
		t.closeOwned()
	}
	return err
}

// reset is called with mu held. The device stops in a goroutine of its own so
// that one which cannot stop costs the vCPU ResetWait once, and nothing later.
func (t *Transport) reset() error {
	if t.resetting == nil {
		t.startReset()
	}
	timer := time.NewTimer(ResetWait)
	defer timer.Stop()
	select {
	case <-t.resetting:
		t.finishReset()
		return nil
	case <-timer.C:
		t.statusMu.Lock()
		t.status |= statusNeedsReset
		t.statusMu.Unlock()
		t.log.Warn("virtio device does not stop", "type", t.dev.Type(), "waited", ResetWait)
		return ErrBusy
	}
}

func (t *Transport) startReset() {
	done := make(chan struct{})
	t.resetting = done
	act := t.act
	t.act = nil
	if act == nil {
		close(done)
		return
	}
	t.statusMu.Lock()
	act.dead = true
	t.statusMu.Unlock()
	go func() {
		t.dev.Reset() // stops its queues, after taking what it still wants of them
		for _, q := range act.queues {
			if q != nil {
				q.Stop() // in case it forgot one
			}
		}
		close(done)
	}()
}

// busy says whether a reset is under way, and completes one that has ended. It
// is called with mu held.
func (t *Transport) busy() bool {
	if t.resetting == nil {
		return false
	}
	select {
	case <-t.resetting:
		t.finishReset()
		return false
	default:
		return true
	}
}

// finishReset puts all registers back (virtio 1.2 §4.2.2.1). Mu is held.
func (t *Transport) finishReset() {
	t.resetting = nil
	t.devSel, t.drvSel, t.drvFeat, t.queueSel = 0, 0, 0, 0
	for i := range t.queues {
		t.queues[i] = queueRegs{max: t.queues[i].max}
	}
	t.intStatus.Store(0)
	t.statusMu.Lock()
	t.status = 0
	t.statusMu.Unlock()
}
