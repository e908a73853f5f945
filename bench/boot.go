package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/lucid-containers/lucid/guest/countboot"
)

// HelloExits is the metric of boot that limits.txt has. With a KVM that needs no assists it is exact.
const HelloExits = "exits to user space, start to the agent's hello"

// boot counts. Its figures are exact: one value each.
func boot(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	if err := c.skipOr("lucid (instructions)", countInstructions(ctx, w, &c)); err != nil {
		return c.results, err
	}
	if w.CountOnly {
		return c.results, nil
	}
	s := lucidSubject("lucid")
	if err := s.ready(); err != nil {
		err = c.skipOr("lucid (exits)", err)
		return c.results, err
	}
	t, err := timeline(ctx, w, s, "true")
	if err != nil {
		return c.results, err
	}
	for _, to := range []struct {
		metric string
		exits  map[string]uint64
	}{{HelloExits, t.HelloExits}, {"exits to user space, start to exit of true", t.Exits}} {
		var sum uint64
		for _, reason := range slices.Sorted(maps.Keys(to.exits)) {
			n := to.exits[reason]
			sum += n
			c.add(Result{Subject: "lucid", Metric: to.metric + ": " + reason, Unit: "exits", Better: Less}, float64(n))
		}
		c.add(Result{Subject: "lucid", Metric: to.metric, Unit: "exits", Better: Less}, float64(sum))
	}
	return c.results, nil
}

func countInstructions(ctx context.Context, w *World, c *collector) error {
	if _, err := needProgram(qemuProgram); err != nil {
		return err
	}
	if _, err := os.Stat(w.Map); err != nil {
		return skip("no System.map beside the kernel: %v", err)
	}
	if os.Getenv("LUCID_LAB") == "1" {
		return skip("an emulator in an emulated host: the same count as outside, for hours")
	}
	for _, serial := range []bool{false, true} {
		metric := "kernel's entry to the agent's dial of vsock, 128 MiB, 1 vCPU"
		if serial {
			metric = "kernel's entry to the hello's arrival over virtio-serial"
		}
		r, err := countboot.Count(ctx, countboot.Config{Kernel: w.Kernel, Map: w.Map, Initrd: w.Initramfs, Serial: serial})
		if err != nil {
			return err
		}
		c.add(Result{Subject: "lucid", Metric: metric, Unit: "instructions", Better: Less}, float64(r.Boot))
	}
	return nil
}

// sizes are of the files that an installation has.
func sizes(_ context.Context, w *World) ([]Result, error) {
	var c collector
	for _, path := range []string{w.Lucid, filepath.Join(filepath.Dir(w.Lucid), "lucid-agent"), w.Kernel, w.Initramfs} {
		info, err := os.Stat(path)
		if err != nil {
			return c.results, fmt.Errorf("size: %w", err)
		}
		c.add(Result{Subject: "lucid", Metric: filepath.Base(path), Unit: "bytes", Better: Less}, float64(info.Size()))
	}
	return c.results, nil
}
