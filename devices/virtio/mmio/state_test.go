package mmio_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/vmstate"
)

// stateful is an echo that can be saved. Its state is a word.
type stateful struct {
	echo
	word      string
	freezeErr error
}

func (s *stateful) Freeze() ([]byte, error) {
	a, _, _ := s.activation()
	for _, q := range a.Queues {
		if q != nil {
			q.Freeze()
		}
	}
	s.wg.Wait()
	return []byte(s.word), s.freezeErr
}

func (s *stateful) Thaw(state []byte) error {
	if s.word = string(state); s.word == "bad" {
		return errBoom
	}
	return nil
}

func newStateful(t testing.TB, g *virtqtest.Guest, e *stateful) *mmio.Transport {
	t.Helper()
	tr, err := mmio.New(mmio.Config{Device: e, Mem: g.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// through encodes and decodes a state.
func through(t testing.TB, s *mmio.State) *mmio.State {
	t.Helper()
	var w vmstate.Writer
	s.Encode(&w)
	r := vmstate.NewReader(w.Data())
	out := mmio.Decode(r)
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, out) {
		t.Fatalf("decoded %+v, saved %+v", out, s)
	}
	return out
}

// TestSaveRestore moves a device between two transports while its driver works,
// several times, past the wrap of the indices.
func TestSaveRestore(t *testing.T) {
	for name, features := range map[string]uint64{
		"all":   allFeatures,
		"plain": virtqtest.FeatureVersion1,
	} {
		t.Run(name, func(t *testing.T) {
			g := virtqtest.NewGuest(t)
			tr := newStateful(t, g, &stateful{word: "first"})
			d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
			d.StartWith(features)
			for round := range 5 {
				for i := range 100 {
					want := fmt.Sprint(round, i)
					if got := d.Queue(1).Request([]byte(want), 64); string(got) != want {
						t.Fatalf("round %d: %q", round, got)
					}
				}
				s, err := tr.Save()
				if err != nil {
					t.Fatal(err)
				}
				// Offered after the device has stopped: the kick is lost with the
				// old eventfd, the chain is not.
				late := d.Queue(0)
				late.Add(late.Out([]byte("late")), late.In(64))
				if err := tr.Close(); err != nil {
					t.Fatal(err)
				}
				next := &stateful{}
				tr = newStateful(t, g, next)
				d.Move(tr, tr.IRQ())
				if err := tr.Restore(through(t, s)); err != nil {
					t.Fatal(err)
				}
				if next.word != "first" {
					t.Errorf("the device thawed %q", next.word)
				}
				if got := late.Data(late.WaitUsed()); string(got) != "late" {
					t.Errorf("what was under way: %q", got)
				}
				if s := d.Status(); s != virtqtest.StatusAcknowledge|virtqtest.StatusDriver|virtqtest.StatusFeaturesOK|virtqtest.StatusDriverOK {
					t.Errorf("status %#x", s)
				}
			}
		})
	}
}

// TestRestoreInterrupts: an interrupt that the driver has not acknowledged comes
// again.
func TestRestoreInterrupts(t *testing.T) {
	g := virtqtest.NewGuest(t)
	tr := newStateful(t, g, &stateful{})
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	d.Start(0)
	s, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	s.IntStatus = 3
	again := newStateful(t, g, &stateful{})
	done := make(chan error, 1)
	go func() { done <- again.IRQ().Wait() }()
	if err := again.Restore(s); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(virtqtest.Timeout):
		t.Error("no interrupt")
	}
}

func TestSaveRefuses(t *testing.T) {
	g := virtqtest.NewGuest(t)
	broken := newStateful(t, g, &stateful{freezeErr: errBoom})
	virtqtest.NewDriver(t, g, broken, broken.IRQ()).Start(0)
	if _, err := broken.Save(); err == nil {
		t.Error("saved a device that refuses")
	}
	// A device without Stateful, and one that needs a reset.
	tr, d := newRig(t, &echo{})
	d.Start(0)
	if _, err := tr.Save(); err == nil {
		t.Error("saved a device that cannot be")
	}
	e := &stateful{}
	failed := newStateful(t, g, e)
	virtqtest.NewDriver(t, g, failed, failed.IRQ()).Start(0)
	a, _, _ := e.activation()
	a.Fail(errBoom)
	if _, err := failed.Save(); err == nil {
		t.Error("saved a device that needs a reset")
	}
}

// TestRestoreHostile: states that no transport of ours has written.
func TestRestoreHostile(t *testing.T) {
	g := virtqtest.NewGuest(t)
	tr := newStateful(t, g, &stateful{})
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	d.Start(0)
	good, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(s *mmio.State){
		"type":              func(s *mmio.State) { s.Type++ },
		"queues":            func(s *mmio.State) { s.Queues = s.Queues[:1] },
		"failed":            func(s *mmio.State) { s.Status |= virtqtest.StatusFailed },
		"needs reset":       func(s *mmio.State) { s.Status |= virtqtest.StatusNeedsReset },
		"unknown status":    func(s *mmio.State) { s.Status |= 1 << 20 },
		"driver ok alone":   func(s *mmio.State) { s.Status = virtqtest.StatusDriverOK },
		"interrupts":        func(s *mmio.State) { s.IntStatus = 4 },
		"features":          func(s *mmio.State) { s.Features |= 1 << 50 },
		"legacy":            func(s *mmio.State) { s.Features &^= virtqtest.FeatureVersion1 },
		"queue of 3":        func(s *mmio.State) { s.Queues[0].Num = 3 },
		"queue of 0":        func(s *mmio.State) { s.Queues[0].Num = 0 },
		"larger queue":      func(s *mmio.State) { s.Queues[0].Num = 128 },
		"absurd queue":      func(s *mmio.State) { s.Queues[0].Num = 1 << 31 },
		"descriptors away":  func(s *mmio.State) { s.Queues[0].Desc = 1 << 62 },
		"available ring":    func(s *mmio.State) { s.Queues[0].Avail = ^uint64(0) - 1 },
		"used ring":         func(s *mmio.State) { s.Queues[0].Used = ^uint64(0) &^ 3 },
		"odd":               func(s *mmio.State) { s.Queues[0].Desc++ },
		"device's own part": func(s *mmio.State) { s.Device = []byte("bad") },
	} {
		bad := *good
		bad.Queues = append([]mmio.QueueState(nil), good.Queues...)
		damage(&bad)
		if err := newStateful(t, g, &stateful{}).Restore(through(t, &bad)); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	again := newStateful(t, g, &stateful{})
	if err := again.Restore(good); err != nil {
		t.Fatal(err)
	}
	if err := again.Restore(good); err == nil {
		t.Error("restored a device that is in use")
	}
}

// TestHostileRingAfterRestore: indices that the driver's ring does not agree with
// cost the guest its device and nothing else.
func TestHostileRingAfterRestore(t *testing.T) {
	g := virtqtest.NewGuest(t)
	tr := newStateful(t, g, &stateful{})
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	d.Start(0)
	s, err := tr.Save()
	if err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	s.Queues[0].At.Next += 1000 // it is 64536 behind
	tr = newStateful(t, g, &stateful{})
	d.Move(tr, tr.IRQ())
	if err := tr.Restore(s); err != nil {
		t.Fatal(err)
	}
	d.WaitNeedsReset()
	d.Start(0)
	if got := d.Queue(0).Request([]byte("again"), 64); string(got) != "again" {
		t.Errorf("after a reset: %q", got)
	}
}

func FuzzDecode(f *testing.F) {
	s := &mmio.State{Type: 42, Status: 15, Features: allFeatures, Queues: make([]mmio.QueueState, 2), Device: []byte("x")}
	var w vmstate.Writer
	s.Encode(&w)
	f.Add(w.Data())
	f.Fuzz(func(t *testing.T, data []byte) {
		r := vmstate.NewReader(data)
		s := mmio.Decode(r)
		if r.Err() == nil {
			_ = newStateful(t, virtqtest.NewSmallGuest(t, 1<<20), &stateful{}).Restore(s)
		}
	})
}
