package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// operateTimeout covers a guest on software KVM.
const operateTimeout = 30 * time.Second

// operate makes a call about a container that has to be in one of the
// statuses.
func (c *Container) operate(method string, params, result any, wrong error, allowed ...Status) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	ok := false
	for _, s := range allowed {
		ok = ok || s == status
	}
	if !ok {
		return wrong
	}
	ctx, cancel := context.WithTimeout(context.Background(), operateTimeout)
	defer cancel()
	err = c.call(ctx, method, params, result)
	var ce *control.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ce) && ce.Kind == control.KindNotRunning, !alive(c.dir), hungUp(err):
		return ErrNotRunning
	case errors.As(err, &ce):
		return ce
	}
	return err
}

// Pause stops the VM's CPUs.
func (c *Container) Pause() error {
	return c.operate(control.MethodPause, nil, nil, ErrNotRunning, Created, Running)
}

// Resume lets a paused VM go on.
func (c *Container) Resume() error {
	return c.operate(control.MethodResume, nil, nil, ErrNotPaused, Paused)
}

// Pids lists the container's processes on the host: the sandbox process
// first, then the stand-ins of execs.
func (c *Container) Pids() ([]int, error) {
	var p control.Pids
	err := c.operate(control.MethodPids, nil, &p, ErrNotRunning, Created, Running, Paused)
	return p.Pids, err
}

// Stats are the counters of the container's cgroup in the guest.
func (c *Container) Stats() (*wire.StatsResult, error) {
	var s wire.StatsResult
	err := c.operate(control.MethodStats, nil, &s, ErrNotRunning, Created, Running, Paused)
	return &s, err
}

// Update changes the limits of the container's cgroups, in the guest and on the
// host.
func (c *Container) Update(r *specs.LinuxResources) error {
	err := c.operate(control.MethodUpdate, oci.GuestResources(r), nil, ErrNotRunning, Created, Running, Paused)
	if err != nil {
		return err
	}
	if c.rec.Pod != "" {
		return nil // the process here does nothing that could be limited
	}
	return c.limitHost(oci.HostResources(r))
}
