package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pids of a container's processes on the host: for runc and crun the container itself, for lucid the sandbox, for runsc sandbox and gofer.
func (s *ociSubject) pids(w *World, b *bundle) ([]int, error) {
	cmd, err := s.command(context.Background(), w, "state", b.id)
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s state: %w", s.label, err)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), `"pid":`); ok {
			pid, err := strconv.Atoi(strings.Trim(rest, " ,"))
			if err != nil || s.label != runsc {
				return []int{pid}, err
			}
			return runscProcesses(b.id)
		}
	}
	return nil, fmt.Errorf("%s state names no pid", s.label)
}

// runscProcesses are those called runsc-something whose last argument is the container's ID.
func runscProcesses(id string) (pids []int, err error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		data, _ := os.ReadFile(p) // it may have ended
		args := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
		if strings.HasPrefix(filepath.Base(args[0]), runsc+"-") && args[len(args)-1] == id {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 && err == nil {
		err = fmt.Errorf("%s: no process of container %s", runsc, id)
	}
	return pids, err
}

// idleFor is how long idle containers are watched, idleAfter how long after the last start: lucid tidies up ten
// seconds after one for the last time.
const idleFor, idleAfter = 10 * time.Second, 12 * time.Second

// density adds idle containers one by one and watches what the host has left.
func density(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	n := w.runs(10) * 2
	list := usable(ctx, w, &c, []keeper{lucidSubject("lucid"), templateSubject(), newQEMU(), peerSubject("crun"), peerSubject("runc"), runscSubject()})
	end := w.clock.share
	for i, s := range list {
		if !end.IsZero() {
			w.clock.share = w.clock.part(end, len(list)-i) // the subjects do not take turns: each has its part
		}
		if err := dense(ctx, w, &c, s, n); err != nil {
			return c.results, fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	return c.results, nil
}

func dense(ctx context.Context, w *World, c *collector, s keeper, n int) error {
	if _, err := w.root(ctx); err != nil { // its pages are not the container's
		return err
	}
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	available := func() (float64, error) {
		time.Sleep(time.Second)
		kb, err := procField("/proc/meminfo", "MemAvailable:")
		return float64(kb) / 1024, err
	}
	before, err := available()
	if err != nil {
		return err
	}
	curve := []float64{0}
	var all [][]int // by container
	for i := range w.rounds(n) {
		w.progress("density: %s: %d of %d", s.name(), i+1, n)
		b, err := w.newBundle(ctx, "sleep", "3600")
		if err != nil {
			return err
		}
		stop, err := s.start(ctx, w, b)
		if err != nil {
			return err
		}
		stops = append(stops, stop)
		pids, err := s.pids(w, b)
		if err != nil {
			return err
		}
		all = append(all, pids)
		now, err := available()
		if err != nil {
			return err
		}
		curve = append(curve, before-now)
	}
	time.Sleep(2 * time.Second) // lucid gives back what its start needed a second after it
	now, err := available()
	if err != nil {
		return err
	}
	r := Result{Subject: s.name(), Unit: "MiB", Better: Less}
	r.Metric, r.Series = "MemAvailable used by N idle containers", true
	c.add(r, curve...)
	r.Metric, r.Series = "MemAvailable used per container", false
	c.add(r, (before-now)/float64(len(stops)))
	for _, pids := range all {
		private, pss, err := memoryOf(pids)
		if err != nil {
			return err
		}
		r.Metric = "private memory of its host process"
		c.add(r, private)
		r.Metric = "proportional memory (PSS) of its host process"
		c.add(r, pss)
	}
	select {
	case <-time.After(idleAfter):
	case <-ctx.Done():
		return ctx.Err()
	}
	used, err := idleCPU(ctx, slices.Concat(all...))
	c.add(Result{Subject: s.name(), Metric: "idle CPU of one container", Unit: "ms/s", Better: Less}, used/float64(len(stops)))
	return err
}

// memoryOf is in MiB, of all together.
func memoryOf(pids []int) (private, pss float64, err error) {
	var kb [3]uint64
	for _, pid := range pids {
		path := filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup")
		for i, name := range []string{"Private_Clean:", "Private_Dirty:", "Pss:"} {
			v, err := procField(path, name)
			if err != nil {
				return 0, 0, err
			}
			kb[i] += v
		}
	}
	return float64(kb[0]+kb[1]) / 1024, float64(kb[2]) / 1024, nil
}

// idleCPU is what the processes use, in ms of CPU per second.
func idleCPU(ctx context.Context, pids []int) (float64, error) {
	all := func() (ns uint64, err error) {
		for _, pid := range pids {
			times, err := threadTimes(pid)
			if err != nil {
				return 0, err
			}
			ns += sum(times)
		}
		return ns, nil
	}
	a, err := all()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	b, err := all()
	if err != nil || b < a {
		return 0, err
	}
	return float64(b-a) / 1e6 / time.Since(begin).Seconds(), nil
}

// dropCaches makes the host's kernel forget what files hold, where we may.
func dropCaches() {
	unix.Sync()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // root only; without it reads are of cached files, for all alike
}
