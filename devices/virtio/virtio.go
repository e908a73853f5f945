// Package virtio is what a device and its transport agree on (virtio 1.2 §2).
// The transport (package mmio) owns registers, negotiation and interrupts; a
// device owns what its queues mean. docs/howto-device.md shows how to add one.
//
// Life of a device, as the transport drives it:
//
//	        Activate (DRIVER_OK)
//	idle ───────────────────────▶ active ──Fail──▶ active, NEEDS_RESET
//	 ▲                               │                 │
//	 └──────────── Reset ────────────┴─────────────────┘
//
// Activate and Reset are never called at the same time, and Type, Features,
// QueueSizes and Config return the same things for ever.
package virtio

import "github.com/lucid-containers/lucid/devices/virtio/virtq"

// Device ids, virtio 1.2 §5.
const (
	TypeNet     = 1
	TypeConsole = 3
	TypeRNG     = 4
	TypeBalloon = 5
	Type9P      = 9
	TypeVsock   = 19
)

// Device-independent feature bits, virtio 1.2 §6. The transport offers them.
const (
	FeatureIndirectDesc = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx     = 1 << 29 // VIRTIO_F_EVENT_IDX
	FeatureVersion1     = 1 << 32 // VIRTIO_F_VERSION_1
)

// Device is one virtio device, whatever transport it sits behind.
type Device interface {
	// Type is the device id.
	Type() uint32
	// Features are the device's own feature bits.
	Features() uint64
	// QueueSizes has the largest size of each queue, a power of two.
	QueueSizes() []uint16
	// Config is the configuration space, nil if there is none.
	Config() ConfigSpace
	// Activate hands over the queues. It runs on a vCPU thread: it starts
	// goroutines and returns. After an error there is no Reset.
	Activate(Activation) error
	// Reset takes back what Activate gave: the device stops its queues (after
	// it has popped what it must not lose) and waits for its goroutines. It
	// returns only when none of them can touch guest memory, and may be called
	// on an idle device. The transport bounds the wait of the vCPU, not of Reset.
	Reset()
}

// ConfigSpace is a device's configuration fields. Accesses may have any offset
// and length, from any vCPU. ReadConfig fills what it has; the rest of p is
// zero before the call.
type ConfigSpace interface {
	ReadConfig(off uint64, p []byte)
	WriteConfig(off uint64, p []byte)
}

// Activation is what a device gets at DRIVER_OK.
type Activation struct {
	// Features are what the driver accepted.
	Features uint64
	// Queues has one entry per queue of QueueSizes, nil where the driver set
	// none up.
	Queues []*virtq.Queue
	// ConfigChanged tells the driver that the configuration space is different
	// now. It does not block.
	ConfigChanged func()
	// Fail tells the driver that the device needs a reset, and the log why. It
	// does not block and may be called by any goroutine, also after Reset.
	Fail func(error)
}

// Kicked is a Device that takes the notifications of its queues on the vCPU
// that writes them, in place of an eventfd that wakes a goroutine of the device
// (Queue.Wait). What it does there the guest's instruction waits for: it has to
// be short, or the device leaves it to a goroutine (Queue.Kick).
type Kicked interface {
	Device
	// Kick is one notification, of a queue by its number in QueueSizes. Several
	// vCPUs may call it at once, at any time, also before Activate and during
	// Reset. It must not call the transport's methods.
	Kick(queue int)
}

// Stateful is a Device that can be saved in one process and come back in
// another. Its queues and registers are the transport's part; a device saves
// what it has besides.
type Stateful interface {
	Device
	// Freeze is Reset for a device that is to be saved: it freezes its queues
	// (virtq.Queue.Freeze), finishes the requests that are under way and waits
	// for its goroutines. It returns the device's own state, or an error if
	// that cannot be saved now. The vCPUs stand still, and the device is good
	// for nothing but Reset afterwards.
	Freeze() ([]byte, error)
	// Thaw gives an idle device the state that Freeze returned, which may have
	// been changed by anybody. Activate follows.
	Thaw(state []byte) error
}
