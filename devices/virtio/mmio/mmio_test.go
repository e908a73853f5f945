package mmio_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/eventfd"
)

var _ bus.Handler = (*mmio.Transport)(nil)

const allFeatures = echoFeature | 1<<40 |
	virtqtest.FeatureVersion1 | virtqtest.FeatureIndirect | virtqtest.FeatureEventIdx

func TestIdentity(t *testing.T) {
	_, d := newRig(t, &echo{})
	for reg, want := range map[uint64]uint32{
		virtqtest.RegMagic: 0x74726976, virtqtest.RegVersion: 2, virtqtest.RegDeviceID: 42,
		virtqtest.RegStatus: 0, virtqtest.RegInterruptStatus: 0, virtqtest.RegQueueReady: 0,
		0xb0: 0xffffffff, 0xb4: 0xffffffff, 0xb8: 0xffffffff, 0xbc: 0xffffffff,
		0x0c0: 0, // no VIRTIO_F_RING_RESET
	} {
		if got := d.Get32(reg); got != want {
			t.Errorf("register %#x = %#x, want %#x", reg, got, want)
		}
	}
	if got := d.Offered(); got != allFeatures {
		t.Errorf("offers %#x, want %#x", got, uint64(allFeatures))
	}
	d.Set32(virtqtest.RegDeviceFeaturesSel, 2)
	if got := d.Get32(virtqtest.RegDeviceFeatures); got != 0 {
		t.Errorf("feature word 2 is %#x", got)
	}
	for sel, want := range map[uint32]uint32{0: 64, 1: 16, 2: 0, 0xffffffff: 0} {
		d.Set32(virtqtest.RegQueueSel, sel)
		if got := d.Get32(virtqtest.RegQueueNumMax); got != want {
			t.Errorf("queue %d of at most %d, want %d", sel, got, want)
		}
	}
}

func TestEcho(t *testing.T) {
	for name, features := range map[string]uint64{
		"all":       allFeatures,
		"plain":     virtqtest.FeatureVersion1,
		"indirect":  virtqtest.FeatureVersion1 | virtqtest.FeatureIndirect,
		"event idx": virtqtest.FeatureVersion1 | virtqtest.FeatureEventIdx,
	} {
		t.Run(name, func(t *testing.T) {
			e := &echo{}
			_, d := newRig(t, e)
			d.StartWith(features)
			if a, _, _ := e.activation(); a.Features != features {
				t.Fatalf("device got features %#x", a.Features)
			}
			for i := range 100 {
				for n := range d.Queues() {
					want := bytes.Repeat([]byte{byte(i)}, i+1)
					if got := d.Queue(n).Request(want, 200); !bytes.Equal(got, want) {
						t.Fatalf("queue %d: got %x", n, got)
					}
				}
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	for _, tt := range []struct {
		name     string
		features uint64
		ok       bool
	}{
		{"only version 1", virtqtest.FeatureVersion1, true},
		{"all", allFeatures, true},
		{"none: legacy", 0, false},
		{"legacy with device feature", echoFeature, false},
		{"not offered", virtqtest.FeatureVersion1 | 1<<6, false},
		{"not offered, high", virtqtest.FeatureVersion1 | 1<<63, false},
		{"packed ring", virtqtest.FeatureVersion1 | 1<<34, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &echo{}
			_, d := newRig(t, e)
			if got := d.Negotiate(tt.features); got != tt.ok {
				t.Fatalf("FEATURES_OK = %v, want %v", got, tt.ok)
			}
			if !tt.ok {
				d.AddStatus(virtqtest.StatusDriverOK)
				if _, n, _ := e.activation(); n != 0 {
					t.Fatal("activated without features")
				}
			}
		})
	}
}

// TestFeaturesFreeze: what was agreed on stays agreed on.
func TestFeaturesFreeze(t *testing.T) {
	e := &echo{}
	_, d := newRig(t, e)
	if !d.Negotiate(virtqtest.FeatureVersion1) {
		t.Fatal("refused")
	}
	d.Set32(virtqtest.RegDriverFeaturesSel, 0)
	d.Set32(virtqtest.RegDriverFeatures, 0xffffffff)
	d.AddStatus(virtqtest.StatusDriverOK)
	if a, n, _ := e.activation(); n != 1 || a.Features != virtqtest.FeatureVersion1 {
		t.Fatalf("activated %d times with %#x", n, a.Features)
	}
}

func TestStatusMachine(t *testing.T) {
	const (
		ack, drv, ok, feat = virtqtest.StatusAcknowledge, virtqtest.StatusDriver,
			virtqtest.StatusDriverOK, virtqtest.StatusFeaturesOK
		failed = virtqtest.StatusFailed
	)
	for _, tt := range []struct {
		name   string
		writes []uint32
		want   uint32
	}{
		{"in order", []uint32{ack, ack | drv, ack | drv | feat, ack | drv | feat | ok}, ack | drv | feat | ok},
		{"at once", []uint32{ack | drv | feat | ok}, ack | drv | feat | ok},
		{"driver first", []uint32{drv}, 0},
		{"features first", []uint32{ack, ack | feat}, ack},
		{"driver ok without features", []uint32{ack, ack | drv, ack | drv | ok}, ack | drv},
		{"bit cleared", []uint32{ack, ack | drv, drv}, ack | drv},
		{"failed", []uint32{ack, ack | failed}, ack | failed},
		{"on after failed", []uint32{ack, ack | failed, ack | failed | drv}, ack | failed},
		{"unknown bits", []uint32{ack | 0x30 | 0xffffff00}, ack},
		{"needs reset set by the driver", []uint32{ack | 64}, ack},
		{"reset", []uint32{ack, ack | drv, 0}, 0},
		{"reset after failed", []uint32{failed, 0, ack}, ack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, d := newRig(t, &echo{})
			d.Set32(virtqtest.RegDriverFeaturesSel, 1)
			d.Set32(virtqtest.RegDriverFeatures, 1)
			for _, w := range tt.writes {
				d.Set32(virtqtest.RegStatus, w)
			}
			if got := d.Status(); got != tt.want {
				t.Fatalf("status %#x, want %#x", got, tt.want)
			}
		})
	}
}

// TestBadQueues: DRIVER_OK with a queue that cannot be is NEEDS_RESET.
func TestBadQueues(t *testing.T) {
	for name, change := range map[string]func(*virtqtest.Ring){
		"size 0":            func(r *virtqtest.Ring) { r.Size = 0 },
		"size 3":            func(r *virtqtest.Ring) { r.Size = 3 },
		"size over maximum": func(r *virtqtest.Ring) { r.Size = 128 },
		"desc misaligned":   func(r *virtqtest.Ring) { r.Desc |= 4 },
		"avail misaligned":  func(r *virtqtest.Ring) { r.Avail |= 1 },
		"used misaligned":   func(r *virtqtest.Ring) { r.Used |= 2 },
		"desc in a hole":    func(r *virtqtest.Ring) { r.Desc = virtqtest.HoleAddr },
		"used beyond RAM":   func(r *virtqtest.Ring) { r.Used = 1 << 60 },
		"avail at the end":  func(r *virtqtest.Ring) { r.Avail = virtqtest.RAMSize - 4 },
	} {
		t.Run(name, func(t *testing.T) {
			e := &echo{}
			_, d := newRig(t, e)
			d.Negotiate(virtqtest.FeatureVersion1)
			r := virtqtest.NewRing(t, d.G, 64)
			change(r)
			d.SetupQueue(0, r)
			if s := d.AddStatus(virtqtest.StatusDriverOK); s&virtqtest.StatusNeedsReset == 0 {
				t.Fatalf("status %#x", s)
			}
			d.WaitConfigChange()
			if _, n, _ := e.activation(); n != 0 {
				t.Fatal("activated")
			}
			d.Start(0)
			if got := d.Queue(0).Request([]byte("after"), 10); string(got) != "after" {
				t.Fatalf("got %q after reset", got)
			}
		})
	}
}

func TestQueueNotSetUp(t *testing.T) {
	e := &echo{}
	_, d := newRig(t, e)
	d.Negotiate(virtqtest.FeatureVersion1)
	d.SetupQueue(1, virtqtest.NewRing(t, d.G, 16))
	d.AddStatus(virtqtest.StatusDriverOK)
	if a, n, _ := e.activation(); n != 1 || a.Queues[0] != nil || a.Queues[1] == nil {
		t.Fatalf("activated %d times with queues %v", n, a.Queues)
	}
}

// TestQueueFreeze is CVE-2026-5747: queue registers written when the queue is
// ready, or after DRIVER_OK, have no effect.
func TestQueueFreeze(t *testing.T) {
	e := &echo{}
	_, d := newRig(t, e)
	change := func() {
		d.Set32(virtqtest.RegQueueSel, 0)
		d.Set32(virtqtest.RegQueueNum, 2)
		for _, reg := range []uint64{virtqtest.RegQueueDescLow, virtqtest.RegQueueDriverLow, virtqtest.RegQueueDeviceLow} {
			d.Set32(reg, 0xdead0000)
			d.Set32(reg+4, 0xffffffff)
		}
	}
	d.Negotiate(virtqtest.FeatureVersion1)
	r := virtqtest.NewRing(t, d.G, 64)
	d.SetupQueue(0, r)
	change()
	if s := d.AddStatus(virtqtest.StatusDriverOK); s&virtqtest.StatusNeedsReset != 0 {
		t.Fatalf("status %#x: the ready queue was changed", s)
	}
	change()
	d.Set32(virtqtest.RegQueueReady, 0)
	if d.Get32(virtqtest.RegQueueReady) != 1 {
		t.Fatal("queue no longer ready")
	}
	change()
	a, _, _ := e.activation()
	if n := a.Queues[0].Size(); n != 64 {
		t.Fatalf("queue of %d", n)
	}
	q := virtqtest.NewQueue(d.G, r, func() { d.Set32(virtqtest.RegQueueNotify, 0) }, nil)
	if got := q.Request([]byte("same"), 10); string(got) != "same" {
		t.Fatalf("got %q", got)
	}
	d.Reset()
	if d.Get32(virtqtest.RegQueueReady) != 0 {
		t.Fatal("queue ready after reset")
	}
}

// TestOddAccesses reads and writes every offset with every width.
func TestOddAccesses(t *testing.T) {
	e := &echo{}
	tr, d := newRig(t, e)
	d.Start(0)
	for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 16} {
		p := bytes.Repeat([]byte{0xff}, n)
		for off := range uint64(0x210) {
			aligned := off%4 == 0 && n == 4
			for i := range p {
				p[i] = 0xff
			}
			tr.Read(off, p)
			if off < virtqtest.RegConfig && !aligned && len(bytes.Trim(p, "\x00")) != 0 {
				t.Fatalf("read of %d at %#x = %x, want zeroes", n, off, p)
			}
			if aligned || off >= virtqtest.RegConfig {
				continue
			}
			tr.Write(off, p)
		}
		for _, off := range []uint64{0x1000, 1 << 32, 1<<64 - 1, 1<<64 - 4} {
			tr.Read(off, p)
			tr.Write(off, p)
		}
	}
	if got := d.Queue(0).Request([]byte("alive"), 10); string(got) != "alive" {
		t.Fatalf("got %q", got)
	}
	for off := uint64(0x100); off < 0x210; off++ {
		for _, n := range []int{1, 2, 3, 4, 8, 16} {
			tr.Write(off, make([]byte, n))
		}
	}
	for off := uint64(0); off < virtqtest.RegConfig; off += 4 {
		if off != virtqtest.RegStatus {
			d.Set32(off, 0xffffffff)
		}
	}
	if s := d.Status(); s != 15 {
		t.Fatalf("status %#x", s)
	}
}

func TestConfigSpace(t *testing.T) {
	tr, d := newRig(t, &echo{})
	p := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	tr.Write(virtqtest.RegConfig+4, p)
	for _, n := range []int{1, 2, 3, 4, 8} {
		got := make([]byte, n)
		tr.Read(virtqtest.RegConfig+4, got)
		if !bytes.Equal(got, p[:n]) {
			t.Errorf("read of %d = %x", n, got)
		}
	}
	tr.Write(virtqtest.RegConfig+14, p) // over the end
	got := bytes.Repeat([]byte{0xff}, 8)
	tr.Read(virtqtest.RegConfig+14, got)
	if want := []byte{1, 2, 0, 0, 0, 0, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("read over the end = %x, want %x", got, want)
	}
	if got := d.Config(100, 4); !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("read past the end = %x", got)
	}
}

func TestConfigChange(t *testing.T) {
	e := &echo{}
	_, d := newRig(t, e)
	d.Start(0)
	before := d.Get32(virtqtest.RegConfigGeneration)
	a, _, _ := e.activation()
	a.ConfigChanged()
	d.WaitConfigChange()
	if d.Get32(virtqtest.RegConfigGeneration) == before {
		t.Fatal("generation did not change")
	}
	d.Reset()
	a.ConfigChanged()
	a.Fail(errBoom)
	if d.Status() != 0 || d.Get32(virtqtest.RegInterruptStatus) != 0 {
		t.Fatal("a call of the last activation came through")
	}
}

func TestInterruptAck(t *testing.T) {
	e := &echo{}
	g := virtqtest.NewGuest(t)
	irq, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	defer irq.Close()
	tr, err := mmio.New(mmio.Config{Device: e, Mem: g.Mem, IRQ: irq})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	idle, err := eventfd.New() // so that nothing acknowledges behind our back
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	d := virtqtest.NewDriver(t, g, tr, idle)
	d.StartWith(virtqtest.FeatureVersion1)
	q := d.Queue(0)
	q.Add(q.In(1))
	q.Kick()
	if err := irq.Wait(); err != nil {
		t.Fatal(err)
	}
	a, _, _ := e.activation()
	a.ConfigChanged()
	if s := d.Get32(virtqtest.RegInterruptStatus); s != 3 {
		t.Fatalf("interrupt status %#x, want both", s)
	}
	d.Set32(virtqtest.RegInterruptACK, 1)
	if s := d.Get32(virtqtest.RegInterruptStatus); s != 2 {
		t.Fatalf("interrupt status %#x after ack of 1", s)
	}
	d.Set32(virtqtest.RegInterruptACK, 0xffffffff)
	if s := d.Get32(virtqtest.RegInterruptStatus); s != 0 {
		t.Fatalf("interrupt status %#x after ack of all", s)
	}
}

func TestFail(t *testing.T) {
	e := &echo{}
	_, d := newRig(t, e)
	d.Start(0)
	a, _, _ := e.activation()
	a.Fail(errBoom)
	a.Fail(errBoom)
	d.WaitConfigChange()
	if s := d.Status(); s != 15|virtqtest.StatusNeedsReset {
		t.Fatalf("status %#x", s)
	}
	d.AddStatus(0) // the driver may write back what it read
	d.Start(0)
	if got := d.Queue(0).Request([]byte("again"), 10); string(got) != "again" {
		t.Fatalf("got %q", got)
	}
}

func TestActivateError(t *testing.T) {
	e := &echo{activateErr: errBoom}
	_, d := newRig(t, e)
	d.Negotiate(virtqtest.FeatureVersion1)
	if s := d.AddStatus(virtqtest.StatusDriverOK); s&virtqtest.StatusNeedsReset == 0 {
		t.Fatalf("status %#x", s)
	}
	d.Reset()
	if _, _, resets := e.activation(); resets != 0 {
		t.Fatal("reset of a device that is not active")
	}
}

// TestMalformedRing: the guest breaks a ring, the device asks for a reset, and
// works after it.
func TestMalformedRing(t *testing.T) {
	_, d := newRig(t, &echo{})
	for range 5 {
		d.Start(0)
		q := d.Queue(1)
		q.SetDesc(0, virtqtest.Desc{Addr: 0x1000, Len: 4, Flags: virtqtest.FNext})
		q.Offer(0)
		q.ForceKick()
		d.WaitNeedsReset()
		d.WaitConfigChange()
	}
}

func TestNotifyUnknown(t *testing.T) {
	e := &echo{}
	_, d := newRig(t, e)
	for _, v := range []uint32{0, 1, 2, 64, 0xffffffff} {
		d.Set32(virtqtest.RegQueueNotify, v) // before activation
	}
	d.Start(0)
	for _, v := range []uint32{2, 64, 0xffffffff} {
		d.Set32(virtqtest.RegQueueNotify, v)
	}
	if got := d.Queue(0).Request([]byte("fine"), 10); string(got) != "fine" {
		t.Fatalf("got %q", got)
	}
}

func TestGivenEventfds(t *testing.T) {
	g := virtqtest.NewGuest(t)
	var fds []*eventfd.FD
	for range 3 {
		fd, err := eventfd.New()
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		fds = append(fds, fd)
	}
	if _, err := mmio.New(mmio.Config{Device: &echo{}, Mem: g.Mem, Kicks: fds}); err == nil {
		t.Fatal("3 kicks for 2 queues accepted")
	}
	tr, err := mmio.New(mmio.Config{Device: &echo{}, Mem: g.Mem, Kicks: fds[:2], IRQ: fds[2]})
	if err != nil {
		t.Fatal(err)
	}
	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
	d.Start(0)
	q := d.Queue(1)
	q.Add(q.Out([]byte("by eventfd")), q.In(10))
	_ = fds[1].Signal() // as KVM_IOEVENTFD does
	if got := q.Data(q.WaitUsed()); string(got) != "by eventfd" {
		t.Fatalf("got %q", got)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := fd.Signal(); err != nil {
			t.Fatalf("Close closed what was not its own: %v", err)
		}
	}
}

// TestStuckReset: a device that does not stop costs a vCPU ResetWait at most,
// and is not claimed to be reset.
func TestStuckReset(t *testing.T) {
	e := &echo{hold: make(chan struct{})}
	tr, d := newRig(t, e)
	d.Start(0)
	begin := time.Now()
	d.Set32(virtqtest.RegStatus, 0)
	if took := time.Since(begin); took < mmio.ResetWait/2 || took > mmio.ResetWait*2 {
		t.Fatalf("reset took %v", took)
	}
	if s := d.Status(); s&virtqtest.StatusNeedsReset == 0 {
		t.Fatalf("status %#x", s)
	}
	begin = time.Now()
	for range 100 {
		d.Set32(virtqtest.RegStatus, 0)
		d.AddStatus(virtqtest.StatusAcknowledge)
		d.Set32(virtqtest.RegQueueNotify, 0)
	}
	if took := time.Since(begin); took > mmio.ResetWait/2 {
		t.Fatalf("accesses to a stuck device took %v", took)
	}
	if err := tr.Close(); !errors.Is(err, mmio.ErrBusy) {
		t.Fatalf("Close = %v", err)
	}
	close(e.hold)
	for d.Status() != 0 {
		time.Sleep(time.Millisecond)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestManyVCPUs hammers the registers from several goroutines while the device
// works and is reset.
func TestManyVCPUs(t *testing.T) {
	tr, d := newRig(t, &echo{})
	before := runtime.NumGoroutine()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			rnd := uint32(i + 1)
			var p [4]byte
			for {
				select {
				case <-stop:
					return
				default:
				}
				rnd = rnd*1664525 + 1013904223
				off := uint64(rnd>>20) % 0x140 &^ 3
				if off == virtqtest.RegStatus && rnd>>12&7 != 0 {
					continue
				}
				tr.Read(off, p[:])
				binary.LittleEndian.PutUint32(p[:], rnd>>(rnd&31))
				tr.Write(off, p[:])
			}
		})
	}
	for range 20 {
		d.Negotiate(virtqtest.FeatureVersion1)
		d.SetupQueue(0, virtqtest.NewRing(t, d.G, 64))
		d.AddStatus(virtqtest.StatusDriverOK)
		time.Sleep(time.Millisecond)
	}
	close(stop)
	wg.Wait()
	if err := tr.Reset(); err != nil {
		t.Fatal(err)
	}
	d.Start(0)
	if got := d.Queue(0).Request([]byte("alive"), 10); string(got) != "alive" {
		t.Fatalf("got %q", got)
	}
	d.Reset()
	time.Sleep(5 * time.Millisecond)
	if n := runtime.NumGoroutine(); n > before {
		t.Fatalf("%d goroutines, %d before", n, before)
	}
}

func TestNewRefuses(t *testing.T) {
	g := virtqtest.NewGuest(t)
	if _, err := mmio.New(mmio.Config{Mem: g.Mem}); err == nil {
		t.Error("no device accepted")
	}
	if _, err := mmio.New(mmio.Config{Device: &echo{}}); err == nil {
		t.Error("no memory accepted")
	}
	for _, n := range []uint16{0, 3, 65535} {
		if _, err := mmio.New(mmio.Config{Device: &sized{sizes: []uint16{n}}, Mem: g.Mem}); err == nil {
			t.Errorf("queue of %d accepted", n)
		}
	}
}

type sized struct {
	echo
	sizes []uint16
}

func (s *sized) QueueSizes() []uint16 { return s.sizes }

func TestStaticConfig(t *testing.T) {
	c := virtio.StaticConfig("abcd")
	for off, want := range map[uint64]string{0: "abc", 2: "cd\x00", 4: "\x00\x00\x00", 1 << 63: "\x00\x00\x00"} {
		p := make([]byte, 3)
		c.ReadConfig(off, p)
		if string(p) != want {
			t.Errorf("at %d: %q, want %q", off, p, want)
		}
	}
	c.WriteConfig(0, []byte("x"))
	if c[0] != 'a' {
		t.Error("written")
	}
}
