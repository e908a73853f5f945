package vsock_test

import (
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/devices/virtio/vsock/vsocktest"
)

func transport(t *testing.T, g *virtqtest.Guest, dev *vsock.Device) *mmio.Transport {
	t.Helper()
	tr, err := mmio.New(mmio.Config{Device: dev, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func request(guestPort uint32) vsocktest.Header {
	return vsocktest.Header{SrcCID: 3, DstCID: 2, SrcPort: guestPort, DstPort: port, Type: 1, Op: vsocktest.OpRequest, BufAlloc: 4096}
}

func op(p []byte) uint16 { return binary.LittleEndian.Uint16(p[30:]) }

// TestHeldRequest is what a template does: a request is kept, saved, and answered
// by whoever listens after the restore; each clone is answered.
func TestHeldRequest(t *testing.T) {
	g := virtqtest.NewGuest(t)
	dev := newDevice(t)
	if _, err := dev.Listen(port); err != nil { // held all the same
		t.Fatal(err)
	}
	came := dev.Hold(port)
	tr := transport(t, g, dev)
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	d.Start(0)
	rx, tx := d.Queue(0), d.Queue(1)
	for range 3 {
		rx.Add(rx.In(4096))
	}
	rx.Kick()
	select {
	case <-came:
		t.Fatal("nothing was sent")
	default:
	}
	h := request(9)
	tx.Send(h.Bytes())
	select {
	case <-came:
	case <-time.After(virtqtest.Timeout):
		t.Fatal("the request is not seen")
	}
	rx.NoUsed(20 * time.Millisecond)
	s, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}

	dev = newDevice(t)
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	tr = transport(t, g, dev)
	d.Move(tr, tr.IRQ())
	if err := tr.Restore(s); err != nil {
		t.Fatal(err)
	}
	if p := rx.Data(rx.WaitUsed()); op(p) != vsocktest.OpResponse {
		t.Fatalf("answer %x", p)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	h.Op, h.Len = vsocktest.OpData, 5
	tx.Send(append(h.Bytes(), "hello"...))
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
		t.Fatalf("read %q, %v", buf, err)
	}
	if _, err := tr.Save(); err == nil {
		t.Error("saved with an open connection")
	}
}

// TestHeldNobody: a clone whose host does not listen refuses, as it would have
// then.
func TestHeldNobody(t *testing.T) {
	g := virtqtest.NewGuest(t)
	dev := newDevice(t)
	dev.Hold(port)
	tr := transport(t, g, dev)
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	d.Start(0)
	rx := d.Queue(0)
	rx.Add(rx.In(4096))
	h := request(9)
	d.Queue(1).Send(h.Bytes())
	s, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	tr = transport(t, g, newDevice(t))
	d.Move(tr, tr.IRQ())
	if err := tr.Restore(s); err != nil {
		t.Fatal(err)
	}
	if p := rx.Data(rx.WaitUsed()); op(p) != vsocktest.OpReset {
		t.Errorf("answer %x", p)
	}
}

// TestHoldBounded: a guest that dials a held port for ever is refused.
func TestHoldBounded(t *testing.T) {
	dev := newDevice(t)
	dev.Hold(port)
	g := vsocktest.NewGuest(t, dev)
	for i := range uint32(9) {
		h := request(100 + i)
		g.Send(h, nil)
	}
	if h, _ := g.Recv(); h.Op != vsocktest.OpReset {
		t.Errorf("the ninth request: %+v", h)
	}
}

func TestThawHostile(t *testing.T) {
	for name, state := range map[string][]byte{
		"empty":    nil,
		"CID":      {4, 0, 0, 0, 0, 0, 0, 0},
		"too many": {3, 0, 0, 0, 255, 0, 0, 0},
		"short":    {3, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3},
		"long":     {3, 0, 0, 0, 0, 0, 0, 0, 1},
	} {
		if err := newDevice(t).Thaw(state); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
