package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lucid-containers/lucid/internal/control"
)

func starters() []subject {
	return []subject{
		lucidSubject("lucid"), templateSubject(), newQEMU(), peerSubject("crun"), peerSubject("runc"),
		peerSubject("runsc", "--network=none"),
	}
}

// start measures from the call to the first byte and to the end. The subjects take turns.
func start(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	c.results = append(c.results, Result{Subject: "gokvm", Skipped: "it has neither 9P nor vsock nor virtio-serial: no container's first byte comes out of it"})
	list := usable(ctx, w, &c, starters())
	n := w.runs(10)
	for i := range w.rounds(n) {
		for _, s := range list {
			w.progress("start: %d of %d: %s", i+1, n, s.name())
			for _, args := range [][]string{{"echo", "x"}, {"true"}} {
				first, end, err := once(ctx, w, s, args...)
				if err != nil {
					return c.results, fmt.Errorf("%s: %w", s.name(), err)
				}
				if args[0] == "echo" {
					c.add(Result{Subject: s.name(), Metric: "first byte of echo", Unit: "ms", Better: Less}, first)
				}
				c.add(Result{Subject: s.name(), Metric: "create, start, exit of " + args[0], Unit: "ms", Better: Less}, end)
			}
		}
	}
	return c.results, phases(ctx, w, &c)
}

// once runs a container and returns the milliseconds to its first byte and to its end.
func once(ctx context.Context, w *World, s subject, args ...string) (first, end float64, err error) {
	b, err := w.newBundle(ctx, args...)
	if err != nil {
		return 0, 0, err
	}
	var out flow
	begin := time.Now()
	if err := s.run(ctx, w, b, nil, &out); err != nil {
		return 0, 0, err
	}
	return since(begin, out.first), since(begin, time.Now()), nil
}

// phases reads lucid's own timelines.
func phases(ctx context.Context, w *World, c *collector) error {
	for _, s := range []*ociSubject{lucidSubject("lucid"), templateSubject()} {
		if s.ready() != nil {
			return nil // said before
		}
		for range w.rounds(min(3, w.runs(3))) {
			t, err := timeline(ctx, w, s, "true")
			if err != nil {
				return err
			}
			before := 0.0
			for _, name := range control.MarkNames[1:] {
				at, ok := t.Marks[name]
				switch {
				case ok:
				case name == control.MarkKernelEntry || name == control.MarkRestored:
					continue // a start has one of the two
				default:
					return fmt.Errorf("%s: the timeline has no %s", s.name(), name)
				}
				c.add(Result{Subject: s.name(), Metric: "to " + name, Unit: "ms", Better: Less, Stack: true}, at-before)
				before = at
			}
		}
	}
	return nil
}

// timeline runs a container and returns what its sandbox noted.
func timeline(ctx context.Context, w *World, s *ociSubject, args ...string) (*control.Timeline, error) {
	b, err := w.newBundle(ctx, args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withLimit(ctx)
	defer cancel()
	cmd, err := s.command(ctx, w, "run", "--keep", "--bundle", b.dir, b.id)
	if err != nil {
		return nil, err
	}
	defer s.remove(w, b)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, failed(ctx, s.label+" run", err, string(out))
	}
	data, err := os.ReadFile(filepath.Join(w.dir, "state-"+s.label, b.id, control.TimelineFile))
	if err != nil {
		return nil, err
	}
	t := new(control.Timeline)
	return t, json.Unmarshal(data, t)
}

// parallel starts ten at once: the time until the last has ended.
func parallel(ctx context.Context, w *World) ([]Result, error) {
	const width = 10
	var c collector
	list := usable(ctx, w, &c, []subject{lucidSubject("lucid"), templateSubject(), peerSubject("crun"), peerSubject("runc")})
	n := w.runs(3)
	for i := range w.rounds(n) {
		for _, s := range list {
			w.progress("parallel: %d of %d: %s", i+1, n, s.name())
			var group sync.WaitGroup
			failed := make(chan error, width)
			begin := time.Now()
			for range width {
				b, err := w.newBundle(ctx, "echo", "x")
				if err != nil {
					return c.results, err
				}
				group.Go(func() { failed <- s.run(ctx, w, b, nil, io.Discard) })
			}
			group.Wait()
			took := since(begin, time.Now())
			close(failed)
			for err := range failed {
				if err != nil {
					return c.results, err
				}
			}
			c.add(Result{Subject: s.name(), Metric: "ten at once, all ended", Unit: "ms", Better: Less}, took)
		}
	}
	return c.results, nil
}

// execs measures a second process, in containers that run meanwhile.
func execs(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, []keeper{lucidSubject("lucid"), peerSubject("crun"), peerSubject("runc")})
	bundles := make([]*bundle, len(list))
	for i, s := range list {
		b, err := w.newBundle(ctx, "sleep", "3600")
		if err != nil {
			return c.results, err
		}
		stop, err := s.start(ctx, w, b)
		if err != nil {
			return c.results, err
		}
		defer stop()
		bundles[i] = b
	}
	n := w.runs(10)
	for i := range w.rounds(n) {
		w.progress("exec: %d of %d", i+1, n)
		for j, s := range list {
			var out flow
			begin := time.Now()
			if err := s.exec(ctx, w, bundles[j], &out, "echo", "x"); err != nil {
				return c.results, err
			}
			c.add(Result{Subject: s.name(), Metric: "first byte of exec echo", Unit: "ms", Better: Less}, since(begin, out.first))
			c.add(Result{Subject: s.name(), Metric: "exec echo to its end", Unit: "ms", Better: Less}, since(begin, time.Now()))
		}
	}
	return c.results, nil
}
