package ninep

import (
	"errors"
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

func statefulRig(t *testing.T, g *virtqtest.Guest) *mmio.Transport {
	t.Helper()
	dev, err := New(Config{Tag: "x", NewSession: func() Session { return &fake{handle: echo} }})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := mmio.New(mmio.Config{Device: dev, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// TestRestored: a device that was not used is saved and serves afterwards; one
// that was is refused, for its session cannot be saved.
func TestRestored(t *testing.T) {
	g := virtqtest.NewGuest(t)
	tr := statefulRig(t, g)
	drv := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	drv.Start(FeatureMountTag)
	s, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	tr = statefulRig(t, g)
	drv.Move(tr, tr.IRQ())
	if err := tr.Restore(s); err != nil {
		t.Fatal(err)
	}
	if got := drv.Queue(0).Request([]byte("hello"), 64); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	if _, err := tr.Save(); !errors.Is(err, errInUse) {
		t.Errorf("a device in use: %v", err)
	}
}
