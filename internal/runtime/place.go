package runtime

// Where a sandbox process is on the host: in cgroups that are made here
// (cgroup.go), or in a scope that systemd makes.

import (
	"context"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/systemd"
)

// place is one of the two.
type place struct {
	groups *cgroups
	scope  *systemd.Scope // if it is set, groups comes of it
}

// findPlace looks it up, and writes down what is to be removed again before it
// exists. Without a cgroupsPath the process stays in the caller's cgroup.
func (c *Container) findPlace(cfg CreateConfig) (place, error) {
	path := cfg.Plan.Host.CgroupsPath
	if cfg.SystemdCgroup {
		if err := systemd.Running(); err != nil {
			return place{}, err
		}
		scope, err := systemd.NewScope(path, cfg.ID, c.rec.Token, os.Geteuid() != 0, cfg.Plan.VM.Memory)
		c.rec.Scope = scope
		return place{scope: scope}, err
	}
	if path == "" {
		return place{groups: &cgroups{}}, nil
	}
	groups, err := findCgroups(cgroupRoot, path)
	if err != nil {
		return place{}, err
	}
	c.rec.Cgroups = append(c.rec.Cgroups, groups.fresh()...) // a second try finds them there
	c.rec.CgroupPaths = groups.paths()
	return place{groups: groups}, nil
}

// enter puts the sandbox process, which waits for its configuration, there,
// under the limits that are the host's.
func (c *Container) enter(p place, cfg CreateConfig) error {
	if err := c.scoreOOM(cfg.Plan.Host.OOMScoreAdj); err != nil {
		return err
	}
	groups, err := p.groups, error(nil)
	if p.scope != nil {
		if groups, err = c.enterScope(p.scope, cfg); err != nil {
			return err
		}
	}
	if p.scope == nil || !groups.v2 {
		err = groups.join(c.rec.Pid) // of v1, what systemd leaves alone
	}
	if err == nil {
		err = groups.limit(cfg.Plan.Host.Resources)
	}
	if err != nil && os.Geteuid() != 0 {
		c.log.Info("no cgroup for the sandbox process", "err", err)
		return nil
	}
	return err
}

// scoreOOM tells the host's OOM killer how dear the container is. Who is not
// root may not lower it, and runc goes on then too.
func (c *Container) scoreOOM(adj *int) error {
	if adj == nil {
		return nil
	}
	err := os.WriteFile("/proc/"+strconv.Itoa(c.rec.Pid)+"/oom_score_adj", []byte(strconv.Itoa(*adj)), 0)
	if err != nil && os.Geteuid() != 0 {
		c.log.Info("the sandbox process keeps its OOM score", "err", err)
		return nil
	}
	return err
}

// enterScope has systemd do it, and writes down where that is.
func (c *Container) enterScope(scope *systemd.Scope, cfg CreateConfig) (*cgroups, error) {
	v2, err := isCgroup2(cgroupRoot)
	if err != nil {
		return nil, err
	}
	path, err := scope.Start(context.Background(), c.rec.Pid, cfg.Plan.Host.Resources, cfg.Spec.Annotations, v2)
	if err != nil {
		return nil, err
	}
	groups, err := findCgroups(cgroupRoot, path)
	if err != nil {
		return nil, err
	}
	c.rec.Cgroups = append(c.rec.Cgroups, groups.fresh()...)
	c.rec.CgroupPaths = groups.paths()
	return groups, writeRecord(c.dir, &c.rec)
}

// leaveScope ends the unit, if there is one. Mostly it has ended with its
// process, but not if that was about to end when it was put there. A systemd
// that does not answer keeps no container from its end.
func (c *Container) leaveScope() {
	if c.rec.Scope == nil {
		return
	}
	if err := c.rec.Scope.Stop(context.Background()); err != nil {
		c.log.Warn("the container's scope may be left", "unit", c.rec.Scope.Unit, "err", err)
	}
	c.rec.Scope = nil
}

// limitHost changes the limits of the container's cgroup on the host.
func (c *Container) limitHost(host *specs.LinuxResources) error {
	if host == nil {
		return nil
	}
	groups := cgroupsAt(c.rec.CgroupPaths)
	if c.rec.Scope != nil {
		if err := c.rec.Scope.Set(context.Background(), host, groups.v2); err != nil {
			return err
		}
	}
	return groups.limit(host)
}
