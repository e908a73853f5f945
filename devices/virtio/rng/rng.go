// Package rng is the virtio entropy device (virtio 1.2 §5.4): the host's
// getrandom(2) straight into guest pages.
//
// A request is answered with at most MaxRequest bytes, and the device hands out
// at most Rate bytes per second after a burst of Burst, so that a guest cannot
// make the host's CPU its own by asking. Linux asks for 64 bytes at boot and
// little later.
//
//	t, err := mmio.New(mmio.Config{Device: rng.New(), Mem: mem})
package rng

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// Limits of the implementation; the specification has none.
const (
	QueueSize  = 8 // Linux keeps one request in flight
	MaxRequest = 4096
	Burst      = 64 << 10
	Rate       = 1 << 20 // bytes per second
)

// Device is one entropy device.
type Device struct {
	fill func([]byte) (int, error) // getrandom, or a fault in tests

	wg   sync.WaitGroup // the queue goroutine
	q    *virtq.Queue   // nil when idle; set by Activate and Reset, never at once
	stop chan struct{}  // closed by Reset
}

// New makes an idle device.
func New() *Device {
	return &Device{fill: func(p []byte) (int, error) { return unix.Getrandom(p, 0) }}
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeRNG }

// Features implements virtio.Device: §5.4.3 has none.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device: §5.4.2, requestq.
func (d *Device) QueueSizes() []uint16 { return []uint16{QueueSize} }

// Config implements virtio.Device: §5.4.4 has none.
func (d *Device) Config() virtio.ConfigSpace { return nil }

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	q := a.Queues[0]
	if q == nil {
		return errors.New("virtio-rng: request queue not set up")
	}
	d.q, d.stop = q, make(chan struct{})
	b := bucket{level: Burst, last: time.Now()}
	d.wg.Go(func() {
		if err := virtq.Serve(q, func(c *virtq.Chain) error { return d.handle(q, c, &b, d.stop) }); err != nil {
			a.Fail(fmt.Errorf("virtio-rng: %w", err))
		}
	})
	return nil
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	if d.q == nil {
		return
	}
	d.q.Stop()
	close(d.stop)
	d.wg.Wait()
	d.q = nil
}

func (d *Device) handle(q *virtq.Queue, c *virtq.Chain, b *bucket, stop <-chan struct{}) error {
	left := int(min(c.WritableLen(), MaxRequest))
	if wait := b.take(left, time.Now()); wait > 0 {
		q.Notify() // what was answered before
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stop:
			return virtq.ErrStopped
		}
	}
	written := 0
	for _, p := range c.Writable() {
		for p = p[:min(len(p), left-written)]; len(p) > 0; {
			n, err := d.fill(p)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return os.NewSyscallError("getrandom", err)
			}
			p, written = p[n:], written+n
		}
	}
	return q.Push(c, uint32(written))
}

// bucket is a token bucket of Burst bytes that fills at Rate.
type bucket struct {
	level int64
	last  time.Time
}

// take takes n bytes and returns how long to wait before using them.
func (b *bucket) take(n int, now time.Time) time.Duration {
	// A second is more than enough to fill it, and keeps the product small.
	gap := min(now.Sub(b.last), time.Second)
	b.level = min(Burst, b.level+int64(gap)*Rate/int64(time.Second))
	b.last = now
	b.level -= int64(n)
	if b.level >= 0 {
		return 0
	}
	return time.Duration(-b.level * int64(time.Second) / Rate)
}
