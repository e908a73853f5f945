package vsock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// Queues, virtio 1.2 section 5.10.2.
const (
	queueRX = iota
	queueTX
	queueEvent
	queues
)

// Queue sizes. Linux fills the RX queue with one page per entry, so its size is
// guest memory: half a MiB. The event queue holds what Linux offers.
const (
	sizeRX    = 128
	sizeTX    = 128
	sizeEvent = 8
)

// Config describes a device.
type Config struct {
	// GuestCID is the guest's address. It means nothing outside this VM; all may
	// have the same. 0 stands for 3.
	GuestCID uint32
	// MaxConns bounds the connections that the guest opened, and apart from them
	// those that Dial opened. 0 stands for 1024.
	MaxConns int
	// Buffer bounds the bytes that are received and not read, over all connections.
	// 0 stands for 48 MiB. It is a limit: idle connections have no buffer. The least
	// is 16 KiB for each of MaxConns.
	Buffer int
}

// Device is a virtio socket device and the host's sockets on it.
type Device struct {
	mux mux

	mu     sync.Mutex // protects what follows; never held while waiting for the guest
	fail   func(error)
	tx     *virtq.Queue
	events *virtq.Queue
	owed   bool // RoutineEvent runs
	// requests that a saved guest waits for, between Thaw and Activate
	owedRequests []request
	wg           sync.WaitGroup // RoutineTX, RoutineEvent
}

var _ virtio.Device = &Device{}

// New makes a device that waits for its guest. Dial and Listen work at once.
func New(cfg Config) (*Device, error) {
	if cfg.GuestCID == 0 {
		cfg.GuestCID = 3
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 1024
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = 48 << 20
	}
	// virtio 1.2 section 5.10.4: 0, 1, 2 and all ones are reserved.
	if cfg.GuestCID <= HostCID || cfg.GuestCID == math.MaxUint32 {
		return nil, fmt.Errorf("vsock: guest CID %d is reserved", cfg.GuestCID)
	}
	least := 2 * windowMin
	if cfg.MaxConns < 0 || cfg.MaxConns > 1<<16 || cfg.Buffer/least < cfg.MaxConns {
		return nil, fmt.Errorf("vsock: %d connections with a buffer of %d bytes: want at most %d and at least %d for each",
			cfg.MaxConns, cfg.Buffer, 1<<16, least)
	}
	d := &Device{mux: mux{
		guestCID:     cfg.GuestCID,
		maxConns:     cfg.MaxConns,
		closeTimeout: closeTimeout,
		done:         make(chan struct{}),
		conns:        map[connKey]*Conn{},
		listeners:    map[uint32]*listener{},
		spare:        cfg.Buffer - cfg.MaxConns*least,
	}}
	d.mux.rx.up = make(chan struct{})
	d.mux.rx.fail = d.failed
	return d, nil
}

// Dial opens a connection to a port of the guest. It waits for the guest's
// driver to come up and then for the answer, as long as ctx allows. Nobody there
// is syscall.ECONNREFUSED; too many connections is syscall.EAGAIN.
func (d *Device) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := d.mux.dial(ctx, port)
	if err != nil {
		return nil, opError(opDial, nil, Addr{CID: d.mux.guestCID, Port: port}, err)
	}
	return c, nil
}

// Listen accepts connections of the guest to a host port; 0 picks a free one. A
// listener outlives resets of the guest.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	l, err := d.mux.listen(port)
	if err != nil {
		return nil, opError(opListen, nil, Addr{CID: HostCID, Port: port}, err)
	}
	return l, nil
}

// Close closes all listeners and connections, for good. The guest still has a
// device, on which nobody answers.
func (d *Device) Close() error {
	d.mux.shutdown()
	return nil
}

// Stats is a snapshot of what a device has done and holds.
type Stats struct {
	FromGuest int    // connections that the guest opened, on the wire or not closed here
	FromHost  int    // the same of Dial
	Dropped   uint64 // packets of the guest without an answer: wrong CIDs, RST to nobody, too many RSTs owed
}

// Stats returns a snapshot.
func (d *Device) Stats() Stats {
	d.mux.mu.Lock()
	defer d.mux.mu.Unlock()
	return Stats{FromGuest: d.mux.fromGuest, FromHost: d.mux.fromHost, Dropped: d.mux.dropped.Load()}
}

// Type is 19, the socket device.
func (d *Device) Type() uint32 { return virtio.TypeVsock }

// Features offers none: stream sockets need none. VIRTIO_VSOCK_F_STREAM (bit 0,
// 5.10.3) came with 1.2, and says the same as offering nothing.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes returns the sizes of the rx, tx and event queues.
func (d *Device) QueueSizes() []uint16 { return []uint16{sizeRX, sizeTX, sizeEvent} }

// Config returns struct virtio_vsock_config (5.10.4): the guest's CID.
func (d *Device) Config() virtio.ConfigSpace {
	return virtio.StaticConfig(binary.LittleEndian.AppendUint64(nil, uint64(d.mux.guestCID)))
}

// Activate takes the queues of a guest whose driver is up.
func (d *Device) Activate(a virtio.Activation) error {
	if len(a.Queues) != queues || slices.Contains(a.Queues, nil) {
		return errors.New("vsock: the driver set up some of the queues only")
	}
	d.mu.Lock()
	d.fail, d.tx, d.events = a.Fail, a.Queues[queueTX], a.Queues[queueEvent]
	d.events.DisableKicks()
	d.wg.Add(1)
	go d.RoutineTX(d.tx)
	held := d.owedRequests
	d.owedRequests = nil
	d.mu.Unlock() // a broken RX queue makes the next lines call failed
	d.mux.rx.start(a.Queues[queueRX])
	d.answerHeld(held)
	return nil
}

// Reset takes the guest's queues away and ends all connections with
// syscall.ECONNRESET. When it returns, nothing here touches guest memory.
func (d *Device) Reset() {
	d.mu.Lock()
	tx, events := d.tx, d.events
	d.tx, d.events, d.fail, d.owed = nil, nil, nil, false
	d.mu.Unlock()
	if tx == nil {
		return
	}
	tx.Stop()
	events.Stop()
	d.wg.Wait()
	d.mux.rx.stop()
	d.mux.dropAll(errReset)
}

// failed asks for a reset by the guest, which has broken the rules.
func (d *Device) failed(err error) {
	d.mu.Lock()
	fail := d.fail
	d.mu.Unlock()
	if fail != nil {
		fail(err)
	}
}

// RoutineTX takes the guest's packets in.
func (d *Device) RoutineTX(q *virtq.Queue) {
	defer d.wg.Done()
	err := virtq.Serve(q, func(c *virtq.Chain) error {
		if err := d.packet(c); err != nil {
			return err
		}
		return q.Push(c, 0)
	})
	if err != nil {
		d.failed(fmt.Errorf("vsock tx: %w", err))
	}
}

// packet takes in the packet that is in the chain. The header is read once, for
// the guest may change it meanwhile.
func (d *Device) packet(c *virtq.Chain) error {
	var raw [headerSize]byte
	pages := c.Readable()
	if c.WritableLen() != 0 || gather(raw[:], pages, 0) < headerSize {
		return fmt.Errorf("%w: %d bytes readable, %d writable", errChain, c.ReadableLen(), c.WritableLen())
	}
	var h header
	h.unmarshal(&raw)
	d.mux.deliver(&h, pages, c.ReadableLen()-headerSize)
	return nil
}

// TransportReset is for a guest that was restored from a template: it ends all
// connections here and, by an event, in the guest, which then reads its CID
// again. Listeners of both sides live on.
func (d *Device) TransportReset() error {
	d.mux.dropAll(errReset)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.events == nil {
		return nil // no guest that could have connections
	}
	sent, err := sendReset(d.events)
	if !sent && err == nil && !d.owed {
		d.owed = true
		d.wg.Add(1)
		go d.RoutineEvent(d.events)
	}
	return err
}

// RoutineEvent waits for a buffer for the event, and ends.
func (d *Device) RoutineEvent(q *virtq.Queue) {
	defer d.wg.Done()
	for q.Wait() == nil {
		d.mu.Lock()
		sent, err := sendReset(q)
		d.owed = !sent && err == nil
		d.mu.Unlock()
		if err != nil {
			d.failed(fmt.Errorf("vsock event: %w", err))
		}
		if sent || err != nil {
			return
		}
	}
}

// sendReset puts TRANSPORT_RESET on the event queue; false if the guest has not
// offered a buffer, and will kick when it does.
func sendReset(q *virtq.Queue) (bool, error) {
	for {
		c, err := q.Pop()
		if err != nil {
			return false, ignoreStopped(err)
		}
		if c == nil {
			if q.EnableKicks() {
				continue
			}
			return false, nil
		}
		var event [eventSize]byte
		binary.LittleEndian.PutUint32(event[:], eventTransportReset)
		if c.ReadableLen() != 0 || c.WriteAt(event[:], 0) < eventSize {
			return false, fmt.Errorf("%w: event buffer of %d bytes", errChain, c.WritableLen())
		}
		if err := q.Push(c, eventSize); err != nil {
			return false, ignoreStopped(err)
		}
		q.DisableKicks()
		q.Notify()
		return true, nil
	}
}
