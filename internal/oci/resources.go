package oci

import "github.com/opencontainers/runtime-spec/specs-go"

// linux.resources is split too: the guest's cgroup holds what the container
// does, the host's what its VM takes.

// GuestResources is what of linux.resources reaches the agent. A zero is no
// limit that anybody means: docker update sends one for what it leaves alone,
// and runc takes it so.
func GuestResources(r *specs.LinuxResources) *specs.LinuxResources {
	g := &specs.LinuxResources{Unified: r.Unified}
	if m := r.Memory; m != nil {
		g.Memory = &specs.LinuxMemory{Limit: set(m.Limit), Reservation: set(m.Reservation)}
	}
	if r.Pids != nil {
		g.Pids = &specs.LinuxPids{Limit: set(r.Pids.Limit)}
	}
	if r.CPU != nil {
		// Not cpus and mems: they number the host's CPUs and NUMA nodes.
		c := r.CPU
		g.CPU = &specs.LinuxCPU{Shares: set(c.Shares), Quota: set(c.Quota), Period: set(c.Period), Burst: set(c.Burst), Idle: set(c.Idle)}
	}
	return g
}

// set is nil for a zero.
func set[T int64 | uint64](p *T) *T {
	if p == nil || *p == 0 {
		return nil
	}
	return p
}

// HostResources is what of linux.resources is for the sandbox process's
// cgroup; nil if that is nothing. Zeros as in GuestResources.
func HostResources(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil {
		return nil
	}
	h := &specs.LinuxResources{}
	if m := r.Memory; m != nil && (set(m.Limit) != nil || set(m.Reservation) != nil || set(m.Swap) != nil) {
		h.Memory = &specs.LinuxMemory{Limit: set(m.Limit), Reservation: set(m.Reservation), Swap: set(m.Swap)}
	}
	if c := r.CPU; c != nil {
		cpu := specs.LinuxCPU{Shares: set(c.Shares), Quota: set(c.Quota), Period: set(c.Period), Idle: set(c.Idle), Cpus: c.Cpus, Mems: c.Mems}
		if cpu != (specs.LinuxCPU{}) {
			h.CPU = &cpu
		}
	}
	if p := r.Pids; p != nil && set(p.Limit) != nil {
		h.Pids = &specs.LinuxPids{Limit: p.Limit}
	}
	if r.BlockIO != nil && !emptyBlockIO(r.BlockIO) {
		h.BlockIO = r.BlockIO
	}
	if h.Memory == nil && h.CPU == nil && h.Pids == nil && h.BlockIO == nil {
		return nil
	}
	return h
}
