package oci

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// fields collects names of fields that are set.
type fields []string

func (f *fields) add(set bool, name string) {
	if set {
		*f = append(*f, name)
	}
}

// NoEffect is the line that tells a user of a field on these lists, or of a flag.
func NoEffect(name string) string { return name + " has no effect on a container in a VM" }

// IgnoredInProcess lists what is set in a process, the container's or that of
// an exec, and has no effect in a VM. docs/conformance.md says why.
func IgnoredInProcess(p *specs.Process) []string {
	var out fields
	out.add(p.ApparmorProfile != "", "process.apparmorProfile")
	out.add(p.SelinuxLabel != "", "process.selinuxLabel")
	out.add(p.IOPriority != nil, "process.ioPriority")
	out.add(p.ExecCPUAffinity != nil, "process.execCPUAffinity")
	out.add(p.CommandLine != "", "process.commandLine")
	out.add(p.User.Username != "", "process.user.username")
	return out
}

// ignored lists what is set in a specification and has no effect in a VM.
func ignored(spec *specs.Spec) []string {
	out := fields(IgnoredInProcess(spec.Process))
	l := spec.Linux
	if l == nil {
		return out
	}
	out.add(l.MountLabel != "", "linux.mountLabel")
	out.add(l.IntelRdt != nil, "linux.intelRdt")
	out.add(l.MemoryPolicy != nil, "linux.memoryPolicy")
	if r := l.Resources; r != nil {
		out = append(out, IgnoredInResources(r)...)
	}
	return out
}

// IgnoredInResources lists what of linux.resources is set and has no effect, at
// creation or in an update. The rules for devices are not on the list: each
// caller sets them.
func IgnoredInResources(r *specs.LinuxResources) []string {
	var out fields
	if b := r.BlockIO; b != nil {
		out.add(!zero(b.LeafWeight), "linux.resources.blockIO.leafWeight")
		leaf := func(d specs.LinuxWeightDevice) bool { return !zero(d.LeafWeight) }
		out.add(slices.ContainsFunc(b.WeightDevice, leaf), "linux.resources.blockIO.weightDevice[].leafWeight")
	}
	out.add(r.Network != nil, "linux.resources.network")
	out.add(len(r.Rdma) > 0, "linux.resources.rdma")
	if c := r.CPU; c != nil {
		out.add(set(c.RealtimeRuntime) != nil, "linux.resources.cpu.realtimeRuntime")
		out.add(set(c.RealtimePeriod) != nil, "linux.resources.cpu.realtimePeriod")
	}
	if m := r.Memory; m != nil {
		//lint:ignore SA1019 old callers set it
		kernel := m.Kernel
		out.add(set(kernel) != nil, "linux.resources.memory.kernel")
		out.add(set(m.KernelTCP) != nil, "linux.resources.memory.kernelTCP")
		out.add(m.Swappiness != nil, "linux.resources.memory.swappiness")
		out.add(m.DisableOOMKiller != nil && *m.DisableOOMKiller, "linux.resources.memory.disableOOMKiller")
		out.add(m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate, "linux.resources.memory.checkBeforeUpdate")
	}
	return out
}

// emptyBlockIO says whether nothing is set: docker always writes the object.
func emptyBlockIO(b *specs.LinuxBlockIO) bool {
	return zero(b.Weight) && zero(b.LeafWeight) && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+
		len(b.ThrottleWriteBpsDevice)+len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0
}

func zero(p *uint16) bool { return p == nil || *p == 0 }
