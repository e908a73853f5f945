package virtqtest

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/eventfd"
)

// Registers of virtio-mmio, virtio 1.2 §4.2.2.
const (
	RegMagic             = 0x000
	RegVersion           = 0x004
	RegDeviceID          = 0x008
	RegVendorID          = 0x00c
	RegDeviceFeatures    = 0x010
	RegDeviceFeaturesSel = 0x014
	RegDriverFeatures    = 0x020
	RegDriverFeaturesSel = 0x024
	RegQueueSel          = 0x030
	RegQueueNumMax       = 0x034
	RegQueueNum          = 0x038
	RegQueueReady        = 0x044
	RegQueueNotify       = 0x050
	RegInterruptStatus   = 0x060
	RegInterruptACK      = 0x064
	RegStatus            = 0x070
	RegQueueDescLow      = 0x080
	RegQueueDriverLow    = 0x090
	RegQueueDeviceLow    = 0x0a0
	RegConfigGeneration  = 0x0fc
	RegConfig            = 0x100
)

// Device status bits, virtio 1.2 §2.1.
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// Feature bits that the transport adds, virtio 1.2 §6.
const (
	FeatureIndirect = 1 << 28
	FeatureEventIdx = 1 << 29
	FeatureVersion1 = 1 << 32
)

// Transport is the register window of a device, as the vCPU sees it. It is
// satisfied by mmio.Transport.
type Transport interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

// Driver drives one device through its transport.
type Driver struct {
	T Transport
	G *Guest

	t      testing.TB
	config chan struct{}
	queues []*Queue

	mu    sync.Mutex
	intrs []chan struct{} // one per queue; protected by mu
}

// NewDriver makes a driver. irq is where the device signals interrupts; the
// driver waits on it and does what a guest's handler does: read and acknowledge
// InterruptStatus.
func NewDriver(t testing.TB, g *Guest, tr Transport, irq *eventfd.FD) *Driver {
	t.Helper()
	d := &Driver{T: tr, G: g, t: t, config: make(chan struct{}, 1)}
	go d.routineIRQ(tr, irq)
	return d
}

// Move makes the driver, which knows nothing of it, go on with another transport:
// its device was saved and restored there. The old one must not interrupt any
// more.
func (d *Driver) Move(tr Transport, irq *eventfd.FD) {
	d.T = tr
	go d.routineIRQ(tr, irq)
}

// routineIRQ ends when the irq is closed.
func (d *Driver) routineIRQ(tr Transport, irq *eventfd.FD) {
	for irq.Wait() == nil {
		var p [4]byte
		tr.Read(RegInterruptStatus, p[:])
		s := binary.LittleEndian.Uint32(p[:])
		tr.Write(RegInterruptACK, p[:])
		if s&1 != 0 {
			d.mu.Lock()
			for _, c := range d.intrs { // the interrupt does not say which queue
				wake(c)
			}
			d.mu.Unlock()
		}
		if s&2 != 0 {
			wake(d.config)
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Get32 reads a register.
func (d *Driver) Get32(off uint64) uint32 {
	var p [4]byte
	d.T.Read(off, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

// Set32 writes a register.
func (d *Driver) Set32(off uint64, v uint32) {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], v)
	d.T.Write(off, p[:])
}

// Config reads n bytes of configuration space one by one.
func (d *Driver) Config(off uint64, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		d.T.Read(RegConfig+off+uint64(i), p[i:i+1])
	}
	return p
}

// Status reads the device status.
func (d *Driver) Status() uint32 { return d.Get32(RegStatus) }

// AddStatus sets bits of the device status and returns what it is then.
func (d *Driver) AddStatus(bits uint32) uint32 {
	d.Set32(RegStatus, d.Status()|bits)
	return d.Status()
}

// Offered reads the feature bits that the device offers.
func (d *Driver) Offered() uint64 {
	d.Set32(RegDeviceFeaturesSel, 1)
	hi := d.Get32(RegDeviceFeatures)
	d.Set32(RegDeviceFeaturesSel, 0)
	return uint64(hi)<<32 | uint64(d.Get32(RegDeviceFeatures))
}

// Negotiate resets the device and goes to FEATURES_OK with exactly these bits.
// It says whether the device agreed.
func (d *Driver) Negotiate(features uint64) bool {
	d.Reset()
	d.AddStatus(StatusAcknowledge)
	d.AddStatus(StatusDriver)
	for sel := range uint32(2) {
		d.Set32(RegDriverFeaturesSel, sel)
		d.Set32(RegDriverFeatures, uint32(features>>(32*sel)))
	}
	return d.AddStatus(StatusFeaturesOK)&StatusFeaturesOK != 0
}

// SetupQueue tells the device where queue i is and enables it.
func (d *Driver) SetupQueue(i uint32, r *Ring) {
	d.Set32(RegQueueSel, i)
	d.Set32(RegQueueNum, uint32(r.Size))
	for _, a := range []struct{ reg, addr uint64 }{
		{RegQueueDescLow, r.Desc},
		{RegQueueDriverLow, r.Avail},
		{RegQueueDeviceLow, r.Used},
	} {
		d.Set32(a.reg, uint32(a.addr))
		d.Set32(a.reg+4, uint32(a.addr>>32))
	}
	d.Set32(RegQueueReady, 1)
}

// Start does what a driver does from reset to DRIVER_OK, with all queues of the
// device, and the device features given (VERSION_1, INDIRECT_DESC and EVENT_IDX
// are added when offered).
func (d *Driver) Start(features uint64) {
	d.t.Helper()
	d.StartWith(features | d.Offered()&(FeatureVersion1|FeatureIndirect|FeatureEventIdx))
}

// StartWith is Start with exactly these features.
func (d *Driver) StartWith(features uint64) {
	d.t.Helper()
	if !d.Negotiate(features) {
		d.t.Fatalf("virtqtest: device refused features %#x, offers %#x", features, d.Offered())
	}
	d.queues = nil
	var intrs []chan struct{}
	for i := uint32(0); ; i++ {
		d.Set32(RegQueueSel, i)
		size := d.Get32(RegQueueNumMax)
		if size == 0 {
			break
		}
		intr := make(chan struct{}, 1)
		intrs = append(intrs, intr)
		q := NewQueue(d.G, NewRing(d.t, d.G, uint16(size)),
			func() { d.Set32(RegQueueNotify, i) },
			func(timeout time.Duration) bool { return wait(intr, timeout) })
		q.EventIdx = features&FeatureEventIdx != 0
		q.Indirect = features&FeatureIndirect != 0
		d.SetupQueue(i, q.Ring)
		d.queues = append(d.queues, q)
	}
	d.mu.Lock()
	d.intrs = intrs
	d.mu.Unlock()
	if s := d.AddStatus(StatusDriverOK); s&StatusNeedsReset != 0 || s&StatusDriverOK == 0 {
		d.t.Fatalf("virtqtest: status %#x after DRIVER_OK", s)
	}
}

func wait(c chan struct{}, timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// WaitConfigChange waits for a configuration-change interrupt.
func (d *Driver) WaitConfigChange() {
	d.t.Helper()
	select {
	case <-d.config:
	case <-time.After(Timeout):
		d.t.Fatalf("virtqtest: no configuration change within %v", Timeout)
	}
}

// WaitNeedsReset waits until the device asks for a reset.
func (d *Driver) WaitNeedsReset() {
	d.t.Helper()
	for end := time.Now().Add(Timeout); d.Status()&StatusNeedsReset == 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			d.t.Fatalf("virtqtest: no NEEDS_RESET within %v", Timeout)
		}
	}
}

// Queues returns how many queues the device has.
func (d *Driver) Queues() int { return len(d.queues) }

// Queue returns queue i after Start.
func (d *Driver) Queue(i int) *Queue { return d.queues[i] }

// Reset resets the device and waits until it says that it is done.
func (d *Driver) Reset() {
	d.t.Helper()
	d.Set32(RegStatus, 0)
	for end := time.Now().Add(Timeout); d.Status() != 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			d.t.Fatalf("virtqtest: status %#x, reset did not end within %v", d.Status(), Timeout)
		}
	}
}
