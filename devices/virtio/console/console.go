package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lucid-containers/lucid/devices/spool"
	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// FeatureMultiport is VIRTIO_CONSOLE_F_MULTIPORT, virtio 1.2 §5.3.3.
const FeatureMultiport = 1 << 1

// Queue numbers, virtio 1.2 §5.3.2. Port n > 0 has queues 2n+2 and 2n+3.
const (
	queueOut   = 1 // port 0, guest to host
	queueCtlRX = 2 // control, host to guest
	queueCtlTX = 3 // control, guest to host
	queuePorts = 4
)

// Implementation constants. The guest posts a page per receive descriptor, so
// a receive queue costs it memory.
const (
	sizeConsoleRX = 4  // nothing is ever sent to hvc0
	sizeConsoleTX = 16 // the guest waits for each message
	sizeControl   = 16
	sizePort      = 64

	// DefaultOutputSize is how much console output waits for a slow host.
	DefaultOutputSize = 64 << 10

	maxPorts   = 30
	maxName    = 64
	outputStep = 4096 // between two looks at whether a reset is wanted
)

// Config is what New needs.
type Config struct {
	Output     io.Writer // what the guest prints on hvc0; nil discards
	OutputSize int       // bytes of it held for a slow Output; 0: DefaultOutputSize
	Ports      []string  // names of the further ports, in the order of their ids
}

// Device is one console device.
type Device struct {
	out    *spool.Spool
	config virtio.StaticConfig
	sizes  []uint16
	ports  []*port // ports[i] has id i+1

	wg sync.WaitGroup // the goroutines of the activation

	mu     sync.Mutex
	active bool           // protected by mu
	ctlRX  *virtq.Queue   // nil unless multiport is active; popped with mu held
	ctls   []control      // by port id, with port 0; protected by mu
	queues []*virtq.Queue // protected by mu
	fail   func(error)    // protected by mu
}

// New makes an idle device. The host ends may be used at once; they block until
// the guest comes.
func New(cfg Config) (*Device, error) {
	if len(cfg.Ports) > maxPorts {
		return nil, fmt.Errorf("virtio-console: %d ports, at most %d", len(cfg.Ports), maxPorts)
	}
	d := &Device{
		sizes: []uint16{sizeConsoleRX, sizeConsoleTX, sizeControl, sizeControl},
		ctls:  make([]control, len(cfg.Ports)+1),
	}
	d.ctls[0].hostOpen = true
	seen := map[string]bool{}
	for i, name := range cfg.Ports {
		if name == "" || len(name) > maxName || seen[name] {
			return nil, fmt.Errorf("virtio-console: port name %q", name)
		}
		seen[name] = true
		d.ports = append(d.ports, newPort(uint32(i+1), name))
		d.ctls[i+1].name = name
		d.sizes = append(d.sizes, sizePort, sizePort)
	}
	// struct virtio_console_config, §5.3.4: cols, rows, max_nr_ports, emerg_wr.
	d.config = make([]byte, 12)
	binary.LittleEndian.PutUint32(d.config[4:], uint32(len(cfg.Ports)+1))
	if cfg.OutputSize == 0 {
		cfg.OutputSize = DefaultOutputSize
	}
	d.out = spool.New(cfg.Output, cfg.OutputSize)
	return d, nil
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeConsole }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return FeatureMultiport }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return d.sizes }

// Config implements virtio.Device.
func (d *Device) Config() virtio.ConfigSpace { return d.config }

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	out := a.Queues[queueOut]
	if out == nil {
		return errors.New("virtio-console: transmit queue of port 0 not set up")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active, d.queues, d.fail = true, a.Queues, a.Fail
	d.serve(out, func(c *virtq.Chain) error { return d.handleOutput(out, c) })
	if a.Features&FeatureMultiport == 0 {
		return nil
	}
	rx, tx := a.Queues[queueCtlRX], a.Queues[queueCtlTX]
	if rx == nil || tx == nil {
		return nil // no control, so no other port either
	}
	rx.DisableKicks()
	d.ctlRX = rx
	d.serve(tx, func(c *virtq.Chain) error { return d.handleControl(tx, c) })
	d.spawn(func() error { return d.routineControlRX(rx) })
	for i, p := range d.ports {
		rx, tx := a.Queues[queuePorts+2*i], a.Queues[queuePorts+2*i+1]
		if rx == nil || tx == nil {
			continue
		}
		p.start(rx, tx, a.Fail)
		d.spawn(func() error { return p.routineTx(tx) })
		d.spawn(func() error { return p.routineRx(rx) })
	}
	return d.flushControl() // what a guest that was saved is still to be told
}

func (d *Device) serve(q *virtq.Queue, handle func(*virtq.Chain) error) {
	d.spawn(func() error { return virtq.Serve(q, handle) })
}

// spawn runs f as a goroutine of the activation. Mu is held.
func (d *Device) spawn(f func() error) {
	fail := d.fail
	d.wg.Go(func() {
		if err := f(); err != nil && !errors.Is(err, virtq.ErrStopped) {
			fail(fmt.Errorf("virtio-console: %w", err))
		}
	})
}

// Reset implements virtio.Device. Readers get the rest and then EOF, writers in
// the middle of a Write an error.
func (d *Device) Reset() {
	d.mu.Lock()
	if !d.active {
		d.mu.Unlock()
		return
	}
	for _, p := range d.ports {
		p.stop() // before its queues: it takes what was sent last
	}
	for _, q := range d.queues {
		if q != nil {
			q.Stop()
		}
	}
	d.ctlRX = nil
	for i := range d.ctls {
		d.ctls[i].due, d.ctls[i].ready = 0, false
	}
	d.mu.Unlock()
	d.wg.Wait() // they take mu
	d.mu.Lock()
	d.active, d.queues, d.fail = false, nil, nil
	d.mu.Unlock()
}

// Close ends the host side: ports are closed, and console output so far is
// written, which takes at most spool.CloseWait. Call it after the transport's
// Close.
func (d *Device) Close() error {
	d.mu.Lock()
	for i, p := range d.ports {
		if p.closeHost(nil) {
			d.setHostOpen(i+1, false)
		}
	}
	d.mu.Unlock()
	return d.out.Close()
}

// Port opens the host end of a named port. There is one at a time; after its
// Close a new one may be opened.
func (d *Device) Port(name string) (Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range d.ports {
		if p.name != name {
			continue
		}
		h, err := p.openHost(d)
		if err != nil {
			return nil, err
		}
		d.setHostOpen(i+1, true)
		return h, nil
	}
	return nil, fmt.Errorf("virtio-console: no port %q", name)
}

// handleOutput takes console output. The guest spins until the chain is pushed.
func (d *Device) handleOutput(q *virtq.Queue, c *virtq.Chain) error {
	for _, b := range c.Readable() {
		for len(b) > 0 && !q.Stopped() {
			n := min(len(b), outputStep)
			_, _ = d.out.Write(b[:n]) // never fails
			b = b[n:]
		}
	}
	return q.Push(c, 0)
}
