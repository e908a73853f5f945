package mmio_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

// echo is a device with two queues that returns what it is sent, and a
// configuration space that can be written.
type echo struct {
	activateErr error
	hold        chan struct{} // Reset waits for it to be closed, if not nil

	wg sync.WaitGroup

	mu          sync.Mutex
	config      [16]byte
	act         virtio.Activation
	activations int
	resets      int
}

const echoFeature = 1 << 5

func (e *echo) Type() uint32               { return 42 }
func (e *echo) Features() uint64           { return echoFeature | 1<<40 }
func (e *echo) QueueSizes() []uint16       { return []uint16{64, 16} }
func (e *echo) Config() virtio.ConfigSpace { return e }
func (e *echo) activation() (a virtio.Activation, activations, resets int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.act, e.activations, e.resets
}

func (e *echo) ReadConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if off < uint64(len(e.config)) {
		copy(p, e.config[off:])
	}
}

func (e *echo) WriteConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if off < uint64(len(e.config)) {
		copy(e.config[off:], p)
	}
}

func (e *echo) Activate(a virtio.Activation) error {
	e.mu.Lock()
	e.act = a
	e.activations++
	e.mu.Unlock()
	if e.activateErr != nil {
		return e.activateErr
	}
	for _, q := range a.Queues {
		if q == nil {
			continue
		}
		e.wg.Go(func() {
			err := virtq.Serve(q, func(c *virtq.Chain) error {
				buf := make([]byte, min(c.ReadableLen(), 4096))
				return q.Push(c, uint32(c.WriteAt(buf[:c.ReadAt(buf, 0)], 0)))
			})
			if err != nil {
				a.Fail(err)
			}
		})
	}
	return nil
}

func (e *echo) Reset() {
	if e.hold != nil {
		<-e.hold
	}
	a, _, _ := e.activation()
	for _, q := range a.Queues {
		if q != nil {
			q.Stop()
		}
	}
	e.wg.Wait()
	e.mu.Lock()
	e.resets++
	e.mu.Unlock()
}

func newRig(t testing.TB, e *echo) (*mmio.Transport, *virtqtest.Driver) {
	t.Helper()
	g := virtqtest.NewGuest(t)
	tr, err := mmio.New(mmio.Config{Device: e, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr, virtqtest.NewDriver(t, g, tr, tr.IRQ())
}

var errBoom = errors.New("boom")
