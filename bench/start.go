package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lucid-containers/lucid/internal/control"
)

func starters() []subject {
	return []subject{
		lucidSubject("lucid"), templateSubject(), newQEMU(), peerSubject("crun"), peerSubject("runc"),
		runscSubject(),
	}
}

// start measures from the call to the first byte and to the end. The subjects take turns.
func start(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	c.results = append(c.results, Result{Subject: "gokvm", Skipped: "it has neither 9P nor vsock nor virtio-serial: no container's first byte comes out of it"})
	list := usable(ctx, w, &c, starters())
	n := w.runs(10)
	for i := range w.rounds(n) {
		for _, s := range inRound(i, list) {
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
	return c.results, errors.Join(phases(ctx, w, &c), hostCPUs(ctx, w, &c))
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

// hostCPUs is what starts of lucid's take besides the guest.
func hostCPUs(ctx context.Context, w *World, c *collector) error {
	for _, s := range []*ociSubject{lucidSubject("lucid"), templateSubject()} {
		if s.ready() != nil {
			return nil // said before
		}
		for range w.rounds(w.runs(5)) {
			ms, err := hostCPU(ctx, w, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			c.add(Result{Subject: s.name(), Metric: "host CPU to the first byte, without the vCPU's thread", Unit: "ms", Better: Less}, ms)
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
	return crowd(ctx, w, starters(), 10, 10, w.runs(3), "ten at once, all ended")
}

// many starts a hundred, four at a time.
func many(ctx context.Context, w *World) ([]Result, error) {
	list := []subject{lucidSubject("lucid"), templateSubject(), peerSubject("crun"), peerSubject("runc")}
	return crowd(ctx, w, list, 100, 4, w.runs(1), "a hundred, four at a time, all ended")
}

// crowd measures the time until the last of count containers has ended, of which width run at a time. Each must say what it is told to.
func crowd(ctx context.Context, w *World, all []subject, count, width, rounds int, metric string) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, all)
	for i := range w.rounds(rounds) {
		for _, s := range inRound(i, list) {
			w.progress("%d containers, %d at a time: %d of %d: %s", count, width, i+1, rounds, s.name())
			bundles := make([]*bundle, count)
			for i := range bundles {
				var err error
				if bundles[i], err = w.newBundle(ctx, "echo", "x"); err != nil {
					return c.results, err
				}
			}
			begin := time.Now()
			if err := inTurns(len(bundles), width, func(i int) error { return echoes(ctx, w, s, bundles[i]) }); err != nil {
				return c.results, fmt.Errorf("%s: %w", s.name(), err)
			}
			c.add(Result{Subject: s.name(), Metric: metric, Unit: "ms", Better: Less}, since(begin, time.Now()))
		}
	}
	return c.results, nil
}

// inTurns calls do for 0 to count-1, width at a time. After a failure, which it returns, it begins no more.
func inTurns(count, width int, do func(int) error) error {
	var next atomic.Int64
	errs := make([]error, width)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			for n := int(next.Add(1)) - 1; n < count && errs[i] == nil; n = int(next.Add(1)) - 1 {
				if errs[i] = do(n); errs[i] != nil {
					next.Store(int64(count))
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// echoes runs a bundle of `echo x`.
func echoes(ctx context.Context, w *World, s subject, b *bundle) error {
	var out bytes.Buffer
	if err := s.run(ctx, w, b, nil, &out); err != nil {
		return err
	}
	if out.String() != "x\n" {
		return fmt.Errorf("container %s: output %q", b.id, out.String())
	}
	return nil
}

// execs measures a second process, in containers that run meanwhile.
func execs(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, []keeper{lucidSubject("lucid"), peerSubject("crun"), peerSubject("runc"), runscSubject()})
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
