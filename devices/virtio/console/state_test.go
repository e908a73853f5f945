package console_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

// restored moves the guest to a new device with the same configuration, whose
// host end of port 1 is open, and returns that.
func (g *guest) restored(cfg console.Config, mem *virtqtest.Guest) console.Port {
	g.t.Helper()
	s, err := g.tr.Save()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.tr.Close(); err != nil {
		g.t.Fatal(err)
	}
	if err := g.dev.Close(); err != nil {
		g.t.Fatal(err)
	}
	if g.dev, err = console.New(cfg); err != nil {
		g.t.Fatal(err)
	}
	port := mustPort(g.t, g.dev, cfg.Ports[0])
	if g.tr, err = mmio.New(mmio.Config{Device: g.dev, Mem: mem.Mem}); err != nil {
		g.t.Fatal(err)
	}
	g.drv.Move(g.tr, g.tr.IRQ())
	if err := g.tr.Restore(s); err != nil {
		g.t.Fatal(err)
	}
	return port
}

// TestRestored: output goes to the new writer, the guest hears of the new host
// end without being asked anything, and bytes go both ways.
func TestRestored(t *testing.T) {
	var log bytes.Buffer
	cfg := console.Config{Ports: []string{"p"}}
	g := boot(t, cfg)
	g.send(0, deviceReady, 1)
	g.expect(message{0, portAdd, 1, ""}, message{1, portAdd, 1, ""})
	g.send(1, portReady, 1)
	g.expect(message{1, portName, 1, "p"})
	g.send(1, portOpen, 1)

	cfg.Output = &log
	host := g.restored(cfg, g.drv.G)
	g.expect(message{1, portOpen, 1, ""})
	g.drv.Queue(1).Send([]byte("printed"))
	rx, tx := g.drv.Queue(4), g.drv.Queue(5)
	rx.Add(rx.In(page))
	rx.Kick()
	if _, err := host.Write([]byte("in")); err != nil { // the guest had it open
		t.Fatal(err)
	}
	if got := rx.Data(rx.WaitUsed()); string(got) != "in" {
		t.Errorf("the guest got %q", got)
	}
	tx.Add(tx.Out([]byte("out")))
	tx.Kick()
	buf := make([]byte, 8)
	if n, err := host.Read(buf); err != nil || string(buf[:n]) != "out" {
		t.Errorf("the host got %q, %v", buf[:n], err)
	}
	if err := g.dev.Close(); err != nil {
		t.Fatal(err)
	}
	if log.String() != "printed" {
		t.Errorf("output %q", log.String())
	}
}

// TestSaveUnread: bytes that the host has taken from the guest's ring and not
// read would be lost.
func TestSaveUnread(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"p"}})
	mustPort(t, g.dev, "p")
	g.send(1, portReady, 1)
	g.send(1, portOpen, 1)
	tx := g.drv.Queue(5)
	tx.Add(tx.Out([]byte("never read")))
	tx.Kick()
	time.Sleep(20 * time.Millisecond) // until it is taken; not yet taken, it could be saved
	if _, err := g.tr.Save(); err == nil {
		t.Error("saved")
	}
}

func TestThawHostile(t *testing.T) {
	for name, state := range map[string][]byte{
		"empty":      nil,
		"more ports": {9, 0, 0, 0},
		"fewer":      {1, 0, 0, 0, 1, 0, 0},
		"short":      {2, 0, 0, 0, 1, 0, 1},
		"events":     {2, 0, 0, 0, 1, 0, 1, 255, 0},
		"bool":       {2, 0, 0, 0, 1, 0, 1, 0, 7},
		"long":       {2, 0, 0, 0, 1, 0, 1, 0, 1, 1},
	} {
		d, err := console.New(console.Config{Ports: []string{"p"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Thaw(state); err == nil {
			t.Errorf("%s: accepted", name)
		}
		_ = d.Close()
	}
}
