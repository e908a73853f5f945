package bench

import (
	"context"
	"fmt"
	"io"
	"time"
)

// pourBytes is what the throughput measurements move.
const pourBytes = 32 << 20

// roundTrips is how many single bytes go there and back.
const roundTrips = 200

// streams measures a process's stdin and stdout.
func streams(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, []subject{
		lucidSubject("lucid, vsock"), lucidSubject("lucid, virtio-serial", "--transport", "serial"), newQEMU(), peerSubject("runc"),
	})
	n := w.runs(3)
	for i := range w.rounds(n) {
		for _, s := range inRound(i, list) {
			w.progress("streams: %d of %d: %s", i+1, n, s.name())
			if err := stream(ctx, w, &c, s); err != nil {
				return c.results, fmt.Errorf("%s: %w", s.name(), err)
			}
		}
	}
	return c.results, nil
}

func stream(ctx context.Context, w *World, c *collector, s subject) error {
	worker := func(job string, in io.Reader, out io.Writer) error {
		b, err := w.newBundle(ctx, "/"+workerName, "worker", job)
		if err != nil {
			return err
		}
		return s.run(ctx, w, b, in, out)
	}
	p := newPinger(roundTrips)
	if err := worker("echo", p, p); err != nil {
		return err
	}
	c.add(Result{Subject: s.name(), Metric: "one byte there and back", Unit: "µs", Better: Less}, p.took...)

	var sink flow
	if err := worker("pour", nil, &sink); err != nil {
		return err
	}
	if sink.n != pourBytes {
		return fmt.Errorf("%d bytes came out, want %d", sink.n, pourBytes)
	}
	c.add(Result{Subject: s.name(), Metric: "out of the container", Unit: "MB/s", Better: More}, sink.rate())

	src := source{left: pourBytes, ready: make(chan struct{})}
	if err := worker("drain", &src, &src); err != nil {
		return err
	}
	c.add(Result{Subject: s.name(), Metric: "into the container", Unit: "MB/s", Better: More}, pourBytes/1e6/src.last.Sub(src.first).Seconds())
	return nil
}

// flow is what comes out, from its first byte on.
type flow struct {
	n           int64
	first, last time.Time
}

func (f *flow) Write(p []byte) (int, error) {
	f.last = time.Now()
	if f.first.IsZero() {
		f.first = f.last
	}
	f.n += int64(len(p))
	return len(p), nil
}

func (f *flow) rate() float64 { return float64(f.n) / 1e6 / f.last.Sub(f.first).Seconds() }

// source is what goes in when the worker has said that it is ready, until it says that it has everything.
type source struct {
	left        int64
	ready       chan struct{}
	first, last time.Time // both set by Write
}

func (f *source) Read(p []byte) (int, error) {
	<-f.ready
	if f.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), f.left)
	f.left -= n
	return int(n), nil
}

func (f *source) Write(p []byte) (int, error) {
	f.last = time.Now()
	if f.first.IsZero() {
		f.first = f.last
		close(f.ready)
	}
	return len(p), nil
}

// pinger is both ends of an echo: a byte is to be read when the one before has come back.
type pinger struct {
	back chan struct{}
	left int
	sent time.Time
	took []float64 // µs
}

func newPinger(n int) *pinger { return &pinger{back: make(chan struct{}, 1), left: n} }

// warmUp is how many of the first bytes do not count: with them the process starts.
const warmUp = 10

func (p *pinger) Read(b []byte) (int, error) {
	if !p.sent.IsZero() {
		<-p.back
	}
	if p.left == -warmUp {
		return 0, io.EOF
	}
	p.left--
	b[0] = 'x'
	p.sent = time.Now()
	return 1, nil
}

func (p *pinger) Write(b []byte) (int, error) {
	if p.left < roundTrips-warmUp {
		p.took = append(p.took, float64(time.Since(p.sent).Nanoseconds())/1000)
	}
	p.back <- struct{}{}
	return len(b), nil
}
