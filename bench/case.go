package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Case is something to measure.
type Case struct {
	Name string
	What string // one line
	run  func(ctx context.Context, w *World) ([]Result, error)
}

// Cases are all of them, in the order in which they run.
func Cases() []Case {
	return []Case{
		{"boot", "guest instructions to the agent's hello (counted, exact) and exits to a created container", boot},
		{"sizes", "bytes of the programs, the guest kernel and the initramfs", sizes},
		{"micro", "what one exit to user space, one MMIO notify with and without ioeventfd, one instruction and one system call that need an assist cost on this KVM", micro},
		{"p9", "the 9P server without a VM, driven by hugelgupf/p9's client; peer: its localfs", p9Cases},
		{"start", "create, start and exit of true and of echo in a Debian; peers runc, crun, runsc, QEMU microvm", start},
		{"parallel", "ten starts of echo at once; peers runc, crun, runsc, QEMU microvm", parallel},
		{"many", "a hundred starts of echo, four at a time; peers runc, crun", many},
		{"exec", "a second process in a running container, to its first byte; peers runc, crun, runsc", execs},
		{"9p", "files from inside a guest; peers QEMU's virtio-9p with the same kernel, agent and msize, and the host itself", files},
		{"streams", "a byte there and back, and throughput, over vsock and virtio-serial; peers QEMU's virtio-serial, runc's pipes", streams},
		{"density", "memory and idle CPU of idle containers; peers runc, crun, runsc, QEMU microvm", density},
		{"9p-cache", "9p with the client's cache modes mmap, none and loose; peer: QEMU's virtio-9p", cacheModes},
	}
}

// ErrCase says that a case does not exist.
var ErrCase = errors.New("no such case")

// CheckCases says which of the names is no case.
func CheckCases(names []string) error {
	for _, n := range names {
		if !slices.ContainsFunc(Cases(), func(c Case) bool { return c.Name == n }) {
			return fmt.Errorf("%w: %q (lucid-bench list shows them)", ErrCase, n)
		}
	}
	return nil
}

// Run runs the named cases, or all, and hands over the results of each when it has ended, so that what was measured is there whatever
// happens to the rest. A case that fails ends with a note instead of its other results, and is an error when all have run.
func Run(ctx context.Context, w *World, names []string, each func([]Result) error) error {
	if err := CheckCases(names); err != nil {
		return err
	}
	var list []Case
	for _, c := range Cases() {
		if len(names) == 0 || slices.Contains(names, c.Name) {
			list = append(list, c)
		}
	}
	return runCases(ctx, w, list, each)
}

func runCases(ctx context.Context, w *World, list []Case, each func([]Result) error) error {
	w.clock.limit = w.Limit
	limited, cancel := w.clock.start(ctx)
	defer cancel()
	var failed error
	for i, c := range list {
		var results []Result
		var err error
		if w.clock.over(limited) == nil {
			w.progress("%s: %s", c.Name, c.What)
			w.clock.next(len(list) - i)
			results, err = c.run(limited, w)
		}
		if why := w.clock.over(limited); why != nil && ctx.Err() == nil {
			results, err = append(results, Result{Subject: "the rest", Skipped: why.Error()}), nil
		}
		if err != nil && ctx.Err() == nil {
			results = append(results, Result{Subject: "the rest", Skipped: err.Error()})
			if !errors.Is(err, errSlow) {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", c.Name, err))
			}
		}
		for i := range results {
			results[i].Case = c.Name
		}
		if err := each(results); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return failed
}

// collector gathers values by subject and metric, in the order in which they first come.
type collector struct{ results []Result }

func (c *collector) add(proto Result, values ...float64) {
	for i := range c.results {
		r := &c.results[i]
		if r.Subject == proto.Subject && r.Metric == proto.Metric && r.Skipped == "" {
			r.Values = append(r.Values, values...)
			return
		}
	}
	proto.Values = values
	c.results = append(c.results, proto)
}

// skipOr notes a skip and returns other errors.
func (c *collector) skipOr(subject string, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, errSkip) {
		return fmt.Errorf("%s: %w", subject, err)
	}
	c.results = append(c.results, Result{Subject: subject, Skipped: err.Error()})
	return nil
}

// skipOnce notes a reason that comes again with each round.
func (c *collector) skipOnce(subject, why string) {
	if !slices.ContainsFunc(c.results, func(r Result) bool { return r.Subject == subject && r.Skipped == why }) {
		c.results = append(c.results, Result{Subject: subject, Skipped: why})
	}
}

// usable drops the subjects that cannot be measured here, and notes why. A peer that cannot even run true on this host is no
// failure of the benchmark.
func usable[S subject](ctx context.Context, w *World, c *collector, list []S) []S {
	var out []S
	for _, s := range list {
		if ctx.Err() != nil {
			break // who was not tried is not to blame
		}
		err := s.ready()
		if err == nil && !w.noTrial(s) {
			err = w.trial(ctx, s) // also so that nobody reads cold files in what is measured
			if s.ours() {
				err = nil // ours is not skipped: what fails now fails again, as an error
			}
		}
		if err != nil {
			c.results = append(c.results, Result{Subject: s.name(), Skipped: err.Error()})
			continue
		}
		out = append(out, s)
	}
	return out
}

// noTrial says that a trial would tell nothing new: ours is never skipped, and its files are warm after one of ours. On a slow KVM a
// trial would take as long as what is to be measured. A start from a template has one all the same: it makes the template.
func (w *World) noTrial(s subject) bool {
	o, ok := s.(*ociSubject)
	if !ok || !o.vm || o.template {
		return false
	}
	again := w.Slow || w.warm
	w.warm = true
	return again
}

// trial runs true once per subject and run.
func (w *World) trial(ctx context.Context, s subject) error {
	if err, known := w.trials[s.name()]; known {
		return err
	}
	b, err := w.newBundle(ctx, "true")
	if err == nil {
		err = s.run(ctx, w, b, nil, io.Discard)
	}
	if err != nil {
		err = fmt.Errorf("does not run here: %w", err)
	}
	w.trials[s.name()] = err
	return err
}
