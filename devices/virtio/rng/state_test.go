package rng

import (
	"bytes"
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

// TestRestored: a saved device goes on, and two clones of it give different bytes.
func TestRestored(t *testing.T) {
	g := virtqtest.NewGuest(t)
	tr, err := mmio.New(mmio.Config{Device: New(), Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	drv := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	drv.Start(0)
	drv.Queue(0).Request(nil, 32)
	s, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if tr, err = mmio.New(mmio.Config{Device: New(), Mem: g.Mem}); err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	drv.Move(tr, tr.IRQ())
	if err := tr.Restore(s); err != nil {
		t.Fatal(err)
	}
	a, b := drv.Queue(0).Request(nil, 32), drv.Queue(0).Request(nil, 32)
	if len(a) != 32 || bytes.Equal(a, b) {
		t.Errorf("got %x and %x", a, b)
	}
	if err := New().Thaw([]byte{1}); err == nil {
		t.Error("thawed from a state that there is not")
	}
}
