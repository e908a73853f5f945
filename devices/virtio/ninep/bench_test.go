package ninep

import (
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/internal/eventfd"
)

type constSession struct{}

func (constSession) Accept([][]byte) Request { return constSession{} }
func (constSession) Close()                  {}
func (constSession) Done()                   {}
func (constSession) Quick() bool             { return true }
func (constSession) Serve(reply [][]byte) int {
	return copy(reply[0], "\x07\x00\x00\x00\x79\x01\x00")
}

// benchRun is a run without a transport: kicks are an eventfd as in a VM, and
// interrupts wake the benchmark as irqfd wakes a vCPU.
func benchRun(b *testing.B) (q *virtqtest.Queue, kick *eventfd.FD, intr chan struct{}, done func()) {
	b.Helper()
	g := virtqtest.NewGuest(b)
	ring := virtqtest.NewRing(b, g, QueueSize)
	kick, err := eventfd.New()
	if err != nil {
		b.Fatal(err)
	}
	intr = make(chan struct{}, QueueSize)
	vq, err := virtq.New(virtq.Config{
		Mem: g.Mem, Size: QueueSize, Desc: ring.Desc, Avail: ring.Avail, Used: ring.Used,
		Kick: kick, Interrupt: func() { intr <- struct{}{} },
	})
	if err != nil {
		b.Fatal(err)
	}
	r := startRun(vq, constSession{}, DefaultWorkers, func(err error) { b.Error(err) })
	q = virtqtest.NewQueue(g, ring, nil, nil)
	return q, kick, intr, func() { r.stop(); _ = kick.Close() }
}

// BenchmarkRoundTrip is kick → Handle → Push → interrupt, one request at a time.
func BenchmarkRoundTrip(b *testing.B) {
	q, kick, intr, done := benchRun(b)
	defer done()
	head := q.Add(q.Out(make([]byte, 24)), q.In(64))
	if err := kick.Signal(); err != nil {
		b.Fatal(err)
	}
	<-intr
	b.ReportAllocs()
	for b.Loop() {
		q.Offer(head)
		_ = kick.Signal()
		<-intr
	}
}

// BenchmarkHandle is the same without the two wake-ups: what the device itself
// costs per request.
func BenchmarkHandle(b *testing.B) {
	g := virtqtest.NewGuest(b)
	ring := virtqtest.NewRing(b, g, QueueSize)
	kick, err := eventfd.New()
	if err != nil {
		b.Fatal(err)
	}
	defer kick.Close()
	vq, err := virtq.New(virtq.Config{
		Mem: g.Mem, Size: QueueSize, Desc: ring.Desc, Avail: ring.Avail, Used: ring.Used,
		EventIdx: true, Indirect: true, Kick: kick, Interrupt: func() {},
	})
	if err != nil {
		b.Fatal(err)
	}
	r := &run{q: vq, sess: constSession{}}
	q := virtqtest.NewQueue(g, ring, nil, nil)
	q.Indirect = true
	head := q.Add(q.Out(make([]byte, 24)), q.In(64))
	b.ReportAllocs()
	for b.Loop() {
		if kept, err := r.look(turnVCPU); !kept || err != nil {
			b.Fatal(kept, err)
		}
		q.Offer(head)
	}
}
