// Package balloon is the memory balloon device (virtio 1.2 §5.5) with one of its duties only: free page reporting (§5.5.6.8).
// The guest's kernel says which of its pages are free, unasked, some two seconds after they became so, and the host takes
// them back. The balloon itself stays empty: nobody asks the guest for pages, so there is nothing that could be asked for
// too much.
//
// Reported pages may hold anything when the guest uses them again: with anonymous memory zeros, with a private mapping of a
// template the template's bytes. That is what VIRTIO_BALLOON_F_PAGE_POISON, not offered, would restrict.
//
// A goroutine serves each queue from Activate to Reset. A report is one madvise(2) per range; ranges of less than a page,
// or across pages, are left alone. A guest that reports pages which it uses harms itself only.
//
//	t, err := mmio.New(mmio.Config{Device: balloon.New(), Mem: mem})
package balloon

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/internal/guestmem"
)

// FeatureReporting is VIRTIO_BALLOON_F_PAGE_REPORTING, §5.5.3.
const FeatureReporting = 1 << 5

// The queues, §5.5.2. The specification numbers the reporting queue 4, after those of two features that are not offered;
// Linux numbers the queues that there are, and so do the hypervisors that it meets.
const (
	inflateQueue = iota
	deflateQueue
	reportingQueue
	queues
)

// QueueSize is enough for Linux: one report of at most 32 ranges (PAGE_REPORTING_CAPACITY) is on its way at a time.
const QueueSize = 32

// Device is one balloon.
type Device struct {
	returned atomic.Uint64 // bytes

	wg     sync.WaitGroup // the queues' goroutines
	queues []*virtq.Queue // nil when idle; set by Activate and Reset, never at once
}

// New makes an idle device.
func New() *Device { return new(Device) }

// Returned counts the bytes that the guest has given back, each time it did.
func (d *Device) Returned() uint64 { return d.returned.Load() }

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeBalloon }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return FeatureReporting }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{QueueSize, QueueSize, QueueSize} }

// Config implements virtio.Device: zeros, the balloon is to be empty. What the driver says of its size is not kept.
func (d *Device) Config() virtio.ConfigSpace { return config{} }

type config struct{}

func (config) ReadConfig(uint64, []byte)  {}
func (config) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device. A driver without reporting has no third queue.
func (d *Device) Activate(a virtio.Activation) error {
	if a.Queues[inflateQueue] == nil || a.Queues[deflateQueue] == nil {
		return errors.New("virtio-balloon: inflate or deflate queue not set up")
	}
	d.queues = a.Queues
	for i, q := range a.Queues {
		if q == nil {
			continue
		}
		handle := func(c *virtq.Chain) error { return q.Push(c, 0) } // a balloon that nobody asked for
		if i == reportingQueue {
			handle = func(c *virtq.Chain) error { return d.report(q, c) }
		}
		d.wg.Go(func() {
			if err := virtq.Serve(q, handle); err != nil {
				a.Fail(fmt.Errorf("virtio-balloon: %w", err))
			}
		})
	}
	return nil
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	for _, q := range d.queues {
		if q != nil {
			q.Stop()
		}
	}
	d.wg.Wait()
	d.queues = nil
}

// report gives the pages of one report to the host: the driver hands them over as buffers to write to, and has them back
// with the answer.
func (d *Device) report(q *virtq.Queue, c *virtq.Chain) error {
	for _, p := range c.Writable() {
		p = p[:len(p)&^(guestmem.PageSize-1)]
		if len(p) == 0 {
			continue
		}
		switch err := unix.Madvise(p, unix.MADV_DONTNEED); {
		case err == nil:
			d.returned.Add(uint64(len(p)))
		case errors.Is(err, unix.EINVAL): // it begins within a page
		case errors.Is(err, unix.EAGAIN): // the host's kernel is short of memory for its own
		default:
			return os.NewSyscallError("madvise", err)
		}
	}
	return q.Push(c, 0)
}
