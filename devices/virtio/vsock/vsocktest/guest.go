package vsocktest

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/eventfd"
)

// Operations and shutdown flags, virtio 1.2 section 5.10.6.
const (
	OpRequest = iota + 1
	OpResponse
	OpReset
	OpShutdown
	OpData
	OpCreditUpdate
	OpCreditRequest

	ShutReceive = 1
	ShutSend    = 2
	ShutBoth    = 3

	HeaderSize = 44
)

// Queue numbers.
const (
	RX = iota
	TX
	Event
)

const (
	rxBufSize = 3776 // what Linux 6.12 offers: a page less the skb_shared_info
	txSlots   = 16
	txBufSize = 64 << 10
)

// Header is struct virtio_vsock_hdr. Send fills in the zero fields that a
// sane guest has no choice about: the CIDs, Type and, if payload is longer, Len.
type Header struct {
	SrcCID, DstCID     uint64
	SrcPort, DstPort   uint32
	Len                uint32
	Type, Op           uint16
	Flags              uint32
	BufAlloc, FwdCount uint32
}

// Bytes encodes h.
func (h Header) Bytes() []byte {
	p := make([]byte, 0, HeaderSize)
	le := binary.LittleEndian
	p = le.AppendUint64(le.AppendUint64(p, h.SrcCID), h.DstCID)
	p = le.AppendUint32(le.AppendUint32(p, h.SrcPort), h.DstPort)
	p = le.AppendUint32(p, h.Len)
	p = le.AppendUint16(le.AppendUint16(p, h.Type), h.Op)
	return le.AppendUint32(le.AppendUint32(le.AppendUint32(p, h.Flags), h.BufAlloc), h.FwdCount)
}

func parse(p []byte) Header {
	le := binary.LittleEndian
	return Header{
		le.Uint64(p), le.Uint64(p[8:]), le.Uint32(p[16:]), le.Uint32(p[20:]), le.Uint32(p[24:]),
		le.Uint16(p[28:]), le.Uint16(p[30:]), le.Uint32(p[32:]), le.Uint32(p[36:]), le.Uint32(p[40:]),
	}
}

// Guest drives the queues of a device.
type Guest struct {
	CID    uint64
	Mem    *virtqtest.Guest
	Queues [3]*virtqtest.Queue
	Failed chan error // what the device gave to Activation.Fail

	t       testing.TB
	dev     virtio.Device
	irq     [3]chan struct{}
	kicks   [3]*eventfd.FD
	txMu    sync.Mutex
	txSlot  map[uint16]uint64 // protected by txMu: head to buffer
	txFree  []uint64          // protected by txMu
	taken   [3]uint16         // used elements taken; TX protected by txMu
	stop    sync.Once
	stopped chan struct{}
}

// Options of a guest.
type Options struct {
	NoEventIdx bool
	RXBuffers  int // -1 for none, 0 for all
}

// NewGuest boots a guest on dev: it activates the device with queues of its own,
// and resets it when the test ends.
func NewGuest(t testing.TB, dev virtio.Device) *Guest { return Boot(t, dev, Options{}) }

// Boot is NewGuest with options.
func Boot(t testing.TB, dev virtio.Device, o Options) *Guest {
	t.Helper()
	g := &Guest{
		Mem: virtqtest.NewGuest(t), Failed: make(chan error, 16),
		t: t, dev: dev, txSlot: map[uint16]uint64{}, stopped: make(chan struct{}),
	}
	var cid [8]byte
	dev.Config().ReadConfig(0, cid[:])
	g.CID = binary.LittleEndian.Uint64(cid[:])
	var qs []*virtq.Queue
	for i, size := range dev.QueueSizes() {
		kick, err := eventfd.New()
		if err != nil {
			t.Fatal(err)
		}
		ring := virtqtest.NewRing(t, g.Mem, size)
		irq := make(chan struct{}, 1)
		q, err := virtq.New(virtq.Config{
			Mem: g.Mem.Mem, Size: size, Desc: ring.Desc, Avail: ring.Avail, Used: ring.Used,
			EventIdx: !o.NoEventIdx, Indirect: true, Kick: kick,
			Interrupt: func() {
				select {
				case irq <- struct{}{}:
				default:
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		qs = append(qs, q)
		g.irq[i], g.kicks[i] = irq, kick
		g.Queues[i] = virtqtest.NewQueue(g.Mem, ring, func() { _ = kick.Signal() }, nil)
		g.Queues[i].EventIdx = !o.NoEventIdx
	}
	for range txSlots {
		g.txFree = append(g.txFree, g.Mem.Alloc(HeaderSize+txBufSize))
	}
	err := dev.Activate(virtio.Activation{Queues: qs, ConfigChanged: func() {}, Fail: func(err error) {
		select {
		case g.Failed <- err:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if o.RXBuffers >= 0 {
		g.OfferRX(o.RXBuffers)
	}
	t.Cleanup(g.Stop)
	return g
}

// OfferRX adds n RX buffers as Linux does; 0 stands for all that fit.
func (g *Guest) OfferRX(n int) {
	q := g.Queues[RX]
	for i := 0; q.Free() > 0 && (n == 0 || i < n); i++ {
		q.Add(q.In(rxBufSize))
	}
	q.Kick()
}

// Stop resets the device, as the end of the guest does. It may be called twice.
func (g *Guest) Stop() {
	g.stop.Do(func() {
		g.dev.Reset()
		close(g.stopped)
		for _, k := range g.kicks {
			_ = k.Close()
		}
	})
}

func (g *Guest) isStopped() bool {
	select {
	case <-g.stopped:
		return true
	default:
		return false
	}
}

// used takes the next used chain of a queue; false if it has none for d.
func (g *Guest) used(queue int, d time.Duration) (virtqtest.Used, bool) {
	q := g.Queues[queue]
	var timeout <-chan time.Time
	for {
		if q.EventIdx {
			q.SetUsedEvent(g.taken[queue]) // before looking, virtio 1.2 section 2.7.7.1
		}
		if u, ok := q.TryUsed(); ok {
			g.taken[queue]++
			return u, true
		}
		if d == 0 {
			return virtqtest.Used{}, false
		}
		if timeout == nil {
			timer := time.NewTimer(d)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-g.irq[queue]:
		case <-g.stopped:
			return virtqtest.Used{}, false
		case <-timeout:
			return virtqtest.Used{}, false
		}
	}
}

// Send sends one packet in two buffers, header and payload, like Linux.
func (g *Guest) Send(h Header, payload []byte) {
	g.t.Helper()
	if h.SrcCID == 0 {
		h.SrcCID = g.CID
	}
	if h.DstCID == 0 {
		h.DstCID = 2
	}
	if h.Type == 0 {
		h.Type = 1
	}
	h.Len = max(h.Len, uint32(len(payload)))
	g.SendRaw(h.Bytes(), payload)
}

// SendRaw sends whatever these buffers hold.
func (g *Guest) SendRaw(bufs ...[]byte) {
	g.t.Helper()
	g.txMu.Lock()
	defer g.txMu.Unlock()
	for {
		u, ok := g.used(TX, 0)
		if !ok && len(g.txFree) == 0 {
			if u, ok = g.used(TX, virtqtest.Timeout); !ok {
				if !g.isStopped() {
					g.t.Errorf("vsocktest: the device took no packet within %v", virtqtest.Timeout)
				}
				return
			}
		}
		if !ok {
			break
		}
		g.txFree = append(g.txFree, g.txSlot[u.Head])
	}
	addr := g.txFree[len(g.txFree)-1]
	g.txFree = g.txFree[:len(g.txFree)-1]
	var chain []virtqtest.Buf
	at := addr
	for _, b := range bufs {
		if len(b) > 0 {
			g.Mem.Write(at, b)
			chain = append(chain, virtqtest.Buf{Addr: at, Len: uint32(len(b))})
			at += uint64(len(b))
		}
	}
	q := g.Queues[TX]
	g.txSlot[q.Add(chain...)] = addr
	q.Kick()
}

// TXIdle waits until the device has taken all packets.
func (g *Guest) TXIdle() {
	g.t.Helper()
	g.txMu.Lock()
	defer g.txMu.Unlock()
	for len(g.txFree) < txSlots {
		u, ok := g.used(TX, virtqtest.Timeout)
		if !ok {
			g.t.Fatalf("vsocktest: the device took no packet within %v", virtqtest.Timeout)
		}
		g.txFree = append(g.txFree, g.txSlot[u.Head])
	}
}

// TryRecv takes the next packet of the host and gives its buffer back; false if
// there is none for d. The payload is a copy.
func (g *Guest) TryRecv(d time.Duration) (h Header, payload []byte, ok bool) {
	g.t.Helper()
	ok = g.recv(d, func(hdr Header, p []byte) { h, payload = hdr, bytes.Clone(p) })
	return h, payload, ok
}

// recv is TryRecv that shows the payload where it lies.
func (g *Guest) recv(d time.Duration, f func(Header, []byte)) bool {
	u, ok := g.used(RX, d)
	if !ok {
		return false
	}
	q := g.Queues[RX]
	var p []byte
	if len(u.Bufs) == 1 {
		p, _ = g.Mem.Mem.Slice(u.Bufs[0].Addr, uint64(u.Written))
	} else {
		p = q.Data(u)
	}
	if len(p) < HeaderSize {
		g.t.Errorf("vsocktest: packet of %d bytes", len(p))
		return false
	}
	h := parse(p)
	if int(h.Len) != len(p)-HeaderSize || h.SrcCID != 2 || h.DstCID != g.CID {
		g.t.Errorf("vsocktest: packet of %d bytes with header %+v", len(p), h)
	}
	f(h, p[HeaderSize:])
	q.Add(u.Bufs...)
	q.Kick()
	return true
}

// Recv is TryRecv for a packet that has to come.
func (g *Guest) Recv() (Header, []byte) {
	g.t.Helper()
	h, p, ok := g.TryRecv(virtqtest.Timeout)
	if !ok {
		g.t.Fatalf("vsocktest: no packet within %v", virtqtest.Timeout)
	}
	return h, p
}
