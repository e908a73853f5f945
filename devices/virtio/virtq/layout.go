package virtq

import "errors"

// Specification constants.
const (
	MaxSize = 32768 // virtio 1.2 §2.7, largest queue size

	DescSize      = 16 // virtio 1.2 §2.7.5, struct virtq_desc
	DescFNext     = 1  // VIRTQ_DESC_F_NEXT
	DescFWrite    = 2  // VIRTQ_DESC_F_WRITE
	DescFIndirect = 4  // VIRTQ_DESC_F_INDIRECT

	AvailFNoInterrupt = 1 // virtio 1.2 §2.7.6, VIRTQ_AVAIL_F_NO_INTERRUPT
	UsedFNoNotify     = 1 // virtio 1.2 §2.7.8, VIRTQ_USED_F_NO_NOTIFY

	descAlign, availAlign, usedAlign = 16, 2, 4 // virtio 1.2 §2.7

	maxTotal = 1 << 32 // virtio 1.2 §2.7.5: at most 2^32 bytes in a chain
)

// MaxIndirect is the implementation's limit on the entries of an indirect
// table when the queue is smaller than that. The specification allows no chain
// longer than the queue, but Linux makes longer ones when it can go indirect
// (virtqueue_add in virtio_ring.c), so small queues need the room.
const MaxIndirect = 256

// What a hostile or broken driver can do wrong. Each makes Pop fail for good:
// the device must ask for a reset.
var (
	ErrRing     = errors.New("virtqueue configuration invalid")
	ErrAvailIdx = errors.New("virtqueue available index jumped")
	ErrInFlight = errors.New("virtqueue buffer offered twice")
	ErrIndex    = errors.New("virtqueue descriptor index out of range")
	ErrLoop     = errors.New("virtqueue chain too long")
	ErrOrder    = errors.New("virtqueue chain has a readable buffer after a writable one")
	ErrTotal    = errors.New("virtqueue chain of more than 4 GiB")
	ErrIndirect = errors.New("virtqueue indirect descriptor invalid")
	ErrAddr     = errors.New("virtqueue buffer outside guest memory")
)

// What a device can meet.
var (
	// ErrStopped says that the queue was stopped: the device is being reset.
	ErrStopped = errors.New("virtqueue stopped")
	// ErrWritten says that a device claims more bytes than the chain has room for.
	ErrWritten = errors.New("more bytes written than the virtqueue chain holds")
	// ErrPanic says that a handler panicked under Serve.
	ErrPanic = errors.New("panic in a virtqueue handler")
)
