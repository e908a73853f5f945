package console_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

const (
	deviceReady = 0
	portAdd     = 1
	portReady   = 3
	consolePort = 4
	portOpen    = 6
	portName    = 7
)

const page = 4096

// guest plays Linux's virtio_console.c against a device.
type guest struct {
	t   testing.TB
	dev *console.Device
	tr  *mmio.Transport
	drv *virtqtest.Driver
}

type message struct {
	id           uint32
	event, value uint16
	name         string
}

// boot starts the driver and posts the buffers of the control queue.
func boot(t testing.TB, cfg console.Config) *guest {
	t.Helper()
	dev, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mem := virtqtest.NewGuest(t)
	tr, err := mmio.New(mmio.Config{Device: dev, Mem: mem.Mem})
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, tr: tr, drv: virtqtest.NewDriver(t, mem, tr, tr.IRQ())}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		_ = dev.Close()
	})
	g.start()
	return g
}

func (g *guest) start() {
	g.t.Helper()
	g.drv.Start(console.FeatureMultiport)
	g.fill(2, 16)
}

func (g *guest) fill(queue, n int) {
	g.t.Helper()
	q := g.drv.Queue(queue)
	for range n {
		q.Add(q.In(page))
	}
	q.Kick()
}

// send sends a control message and spins until it is used, as Linux does.
func (g *guest) send(id uint32, event, value uint16) {
	g.t.Helper()
	p := binary.LittleEndian.AppendUint32(nil, id)
	p = binary.LittleEndian.AppendUint16(p, event)
	p = binary.LittleEndian.AppendUint16(p, value)
	g.drv.Queue(3).Send(p)
}

func (g *guest) receive() message {
	g.t.Helper()
	q := g.drv.Queue(2)
	u := q.WaitUsed()
	p := q.Data(u)
	if len(p) < 8 {
		g.t.Fatalf("control message of %d bytes", len(p))
	}
	q.Add(u.Bufs...)
	q.Kick()
	return message{
		binary.LittleEndian.Uint32(p),
		binary.LittleEndian.Uint16(p[4:]), binary.LittleEndian.Uint16(p[6:]), string(p[8:]),
	}
}

func (g *guest) expect(want ...message) {
	g.t.Helper()
	for _, w := range want {
		if got := g.receive(); got != w {
			g.t.Fatalf("control message %+v, want %+v", got, w)
		}
	}
}

// port brings a port up to the state after Linux's add_port.
func (g *guest) port(id int) (rx, tx *virtqtest.Queue) {
	g.t.Helper()
	g.send(0, deviceReady, 1)
	for i := range uint32(2) {
		g.expect(message{id: i, event: portAdd, value: 1})
	}
	g.fill(2+2*id, 64)
	g.send(uint32(id), portReady, 1)
	return g.drv.Queue(2 + 2*id), g.drv.Queue(3 + 2*id)
}

func mustPort(t testing.TB, dev *console.Device, name string) console.Port {
	t.Helper()
	p, err := dev.Port(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// opened brings up a device with one port open on both ends.
func opened(t testing.TB) (g *guest, host console.Port, rx, tx *virtqtest.Queue) {
	t.Helper()
	g = boot(t, console.Config{Ports: []string{"lucid.control"}})
	host = mustPort(t, g.dev, "lucid.control")
	rx, tx = g.port(1)
	g.expect(
		message{1, portName, 1, "lucid.control"},
		message{1, portOpen, 1, ""},
	)
	g.send(1, portOpen, 1)
	return g, host, rx, tx
}

// within fails the test if f does not end soon.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(virtqtest.Timeout):
		t.Fatalf("%s: blocked", what)
	}
}
