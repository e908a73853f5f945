package console

import (
	"encoding/binary"
	"io"
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/eventfd"
)

// fuzzRig is a device with one named port whose goroutines are the fuzz target's
// steps, so that a run is the same each time.
type fuzzRig struct {
	t     *testing.T
	d     *Device
	p     *port
	g     *virtqtest.Guest
	kick  *eventfd.FD
	host  Port
	q     map[int]*virtq.Queue     // by queue number
	drv   map[int]*virtqtest.Queue // their driver sides
	buf   uint64
	ready [2]bool // PORT_READY 1 was sent since activation
}

const fuzzBuf = 8192

// FuzzControl takes bytes as a guest's control messages and data, the host's
// opens and closes, and resets, in any order.
func FuzzControl(f *testing.F) {
	f.Add([]byte{1, 80, 1, 80, 1, 80, 0, 8, 0, 0, 1, 0, 8, 1, 3, 1, 3, 0, 8, 1, 6, 1, 4, 20, 5, 9, 0, 8, 1, 6, 0, 5, 9, 2, 2})
	f.Add([]byte{3, 0, 8, 1, 6, 1, 4, 9, 0, 8, 1, 6, 0, 4, 9, 0, 8, 1, 6, 1, 6, 5, 1})
	f.Add([]byte{1, 2, 0, 8, 0, 0, 1})
	kick, err := eventfd.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := New(Config{Ports: []string{"port"}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		r := &fuzzRig{t: t, d: d, p: d.ports[0], kick: kick}
		r.activate()
		for len(data) > 1 && r.step(&data) {
			if n := len(r.p.pending); n > 2*sizePort+3 {
				t.Fatalf("%d pending", n)
			}
			for _, q := range r.q {
				if n := q.InFlight(); n > sizePort {
					t.Fatalf("%d in flight", n)
				}
			}
		}
	})
}

func (r *fuzzRig) activate() {
	r.g = virtqtest.NewSmallGuest(r.t, 64<<10)
	r.q, r.drv = map[int]*virtq.Queue{}, map[int]*virtqtest.Queue{}
	for i, size := range map[int]uint16{queueCtlRX: sizeControl, queueCtlTX: sizeControl, 4: sizePort, 5: sizePort} {
		ring := virtqtest.NewRing(r.t, r.g, size)
		q, err := virtq.New(virtq.Config{
			Mem: r.g.Mem, Size: size, Desc: ring.Desc, Avail: ring.Avail, Used: ring.Used,
			EventIdx: true, Kick: r.kick, Interrupt: func() {},
		})
		if err != nil {
			r.t.Fatal(err)
		}
		r.q[i], r.drv[i] = q, virtqtest.NewQueue(r.g, ring, func() {}, nil)
	}
	r.buf = r.g.Alloc(fuzzBuf)
	r.ready = [2]bool{}
	r.d.mu.Lock()
	r.d.active, r.d.ctlRX = true, r.q[queueCtlRX]
	r.d.fail = func(err error) { r.t.Logf("fail: %v", err) }
	r.d.mu.Unlock()
	r.p.start(r.q[4], r.q[5], r.d.fail)
}

// step does one thing and returns false when the device has failed.
func (r *fuzzRig) step(data *[]byte) bool {
	next := func() (b byte) {
		if len(*data) > 0 {
			b, *data = (*data)[0], (*data)[1:]
		}
		return b
	}
	var err error
	switch next() % 7 {
	case 0:
		n := next()
		err = r.control(int(n), uint32(next())-uint32(n>>7), uint16(next()), uint16(next()))
	case 1:
		if q := r.drv[queueCtlRX]; q.Free() > 0 {
			q.Add(virtqtest.Buf{Addr: r.buf, Len: uint32(next()), Writable: true})
			r.d.mu.Lock()
			err = r.d.flushControl()
			r.d.mu.Unlock()
		}
	case 2:
		r.answers()
	case 3:
		r.toggleHost()
	case 4:
		if q := r.drv[5]; q.Free() > 0 {
			q.Add(virtqtest.Buf{Addr: r.buf, Len: uint32(next()) * 16})
			r.p.mu.Lock()
			_, err = r.p.take()
			r.p.mu.Unlock()
			for _, ok := q.TryUsed(); ok; _, ok = q.TryUsed() {
			}
		}
	case 5:
		if r.host != nil && len(r.p.pending) > 0 {
			if n, err := r.host.Read(make([]byte, 1+int(next())*64)); n == 0 && err != io.EOF {
				r.t.Fatalf("Read = %d, %v", n, err)
			}
		}
	case 6:
		r.d.queues = []*virtq.Queue{r.q[queueCtlRX], r.q[queueCtlTX]}
		r.d.Reset()
		r.activate()
	}
	return err == nil
}

func (r *fuzzRig) control(n int, id uint32, event, value uint16) error {
	q := r.drv[queueCtlTX]
	msg := binary.LittleEndian.AppendUint32(nil, id)
	msg = binary.LittleEndian.AppendUint16(msg, event)
	msg = binary.LittleEndian.AppendUint16(msg, value)
	r.g.Write(r.buf, msg)
	n &= 0x1f
	q.Add(virtqtest.Buf{Addr: r.buf, Len: uint32(n)})
	c, err := r.q[queueCtlTX].Pop()
	if err != nil {
		r.t.Fatal(err)
	}
	if n >= controlSize && event == eventPortReady && id < 2 {
		r.ready[id] = r.ready[id] || value == 1
	}
	if err := r.d.handleControl(r.q[queueCtlTX], c); err != nil {
		return err
	}
	if _, ok := q.TryUsed(); !ok {
		r.t.Fatal("control message not used: the guest would spin")
	}
	return nil
}

// answers checks what the device told the guest.
func (r *fuzzRig) answers() {
	q := r.drv[queueCtlRX]
	for u, ok := q.TryUsed(); ok; u, ok = q.TryUsed() {
		if u.Written < controlSize || u.Written > controlSize+maxName {
			r.t.Fatalf("answer of %d bytes", u.Written)
		}
	}
	for i, c := range r.d.ctls {
		if c.ready && !r.ready[i] {
			r.t.Fatalf("port %d is ready without the guest's word", i)
		}
		if c.due&^(dueAdd|dueConsole|dueName|dueClose|dueOpen) != 0 {
			r.t.Fatalf("port %d: due %#x", i, c.due)
		}
	}
}

func (r *fuzzRig) toggleHost() {
	if r.host == nil {
		host, err := r.d.Port("port")
		if err != nil {
			r.t.Fatal(err)
		}
		r.host = host
		return
	}
	if err := r.host.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.host = nil
	if len(r.p.pending) != 0 {
		r.t.Fatal("data held for nobody")
	}
}
