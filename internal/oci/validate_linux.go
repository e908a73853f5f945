package oci

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func checkLinux(l *specs.Linux) error {
	if l == nil {
		return nil
	}
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range l.Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		switch ns.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return fieldErr(field+".type", "%q is not a namespace", ns.Type)
		}
		if seen[ns.Type] {
			return fieldErr(field+".type", "%s is given twice", ns.Type)
		}
		seen[ns.Type] = true
		if ns.Path == "" {
			continue
		}
		if !filepath.IsAbs(ns.Path) {
			return fieldErr(field+".path", "%q is not an absolute path", ns.Path)
		}
	}
	if len(l.NetDevices) > 0 {
		return fieldErr("linux.netDevices", "not supported")
	}
	if err := checkIDs(l, seen[specs.UserNamespace]); err != nil {
		return err
	}
	if err := checkTime(l.TimeOffsets, seen[specs.TimeNamespace]); err != nil {
		return err
	}
	for _, list := range []struct {
		name string
		of   []string
	}{{"linux.maskedPaths", l.MaskedPaths}, {"linux.readonlyPaths", l.ReadonlyPaths}} {
		for i, p := range list.of {
			if !filepath.IsAbs(p) {
				return fieldErr(fmt.Sprintf("%s[%d]", list.name, i), "%q is not an absolute path", p)
			}
		}
	}
	return checkLinuxRest(l)
}

// checkIDs checks the mappings of a user namespace.
func checkIDs(l *specs.Linux, user bool) error {
	for _, list := range []struct {
		name string
		of   []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		switch {
		case len(list.of) > 0 && !user:
			return fieldErr(list.name, "needs a user namespace in linux.namespaces")
		case len(list.of) == 0 && user:
			return fieldErr(list.name, "must not be empty with a user namespace")
		}
		for i, m := range list.of {
			if m.Size == 0 {
				return fieldErr(fmt.Sprintf("%s[%d].size", list.name, i), "must be above 0")
			}
		}
	}
	return nil
}

func checkTime(offsets map[string]specs.LinuxTimeOffset, namespace bool) error {
	if len(offsets) > 0 && !namespace {
		return fieldErr("linux.timeOffsets", "needs a time namespace in linux.namespaces")
	}
	for _, clock := range slices.Sorted(maps.Keys(offsets)) {
		field := "linux.timeOffsets[" + clock + "]"
		if clock != "monotonic" && clock != "boottime" {
			return fieldErr(field, "not a clock with an offset: monotonic and boottime are")
		}
		if offsets[clock].Nanosecs >= 1e9 {
			return fieldErr(field+".nanosecs", "%d is a second or more", offsets[clock].Nanosecs)
		}
	}
	return nil
}

// checkLinuxRest checks what stands for itself.
func checkLinuxRest(l *specs.Linux) error {
	propagations := []string{"", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}
	if !slices.Contains(propagations, l.RootfsPropagation) {
		return fieldErr("linux.rootfsPropagation", "%q is not a propagation", l.RootfsPropagation)
	}
	if p := l.Personality; p != nil {
		if p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
			return fieldErr("linux.personality.domain", "%q is neither %s nor %s", p.Domain, specs.PerLinux, specs.PerLinux32)
		}
		if len(p.Flags) > 0 {
			return fieldErr("linux.personality.flags", "%q: the specification has no flags", p.Flags[0])
		}
	}
	for i, d := range l.Devices {
		field := fmt.Sprintf("linux.devices[%d]", i)
		if !filepath.IsAbs(d.Path) {
			return fieldErr(field+".path", "%q is not an absolute path", d.Path)
		}
		if !slices.Contains([]string{"b", "c", "u", "p"}, d.Type) {
			return fieldErr(field+".type", "%q is not b, c, u or p", d.Type)
		}
	}
	if l.Resources != nil {
		return ValidateResources(l.Resources)
	}
	return nil
}

// ValidateResources checks linux.resources, a container's or an update's.
func ValidateResources(r *specs.LinuxResources) error {
	for _, name := range slices.Sorted(maps.Keys(r.Unified)) {
		if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
			return fieldErr("linux.resources.unified", "%q is not a file name of a cgroup", name)
		}
	}
	return nil
}

// checkScheduler checks process.scheduler.
func checkScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	switch s.Policy {
	case specs.SchedOther, specs.SchedBatch, specs.SchedFIFO, specs.SchedRR, specs.SchedIdle, specs.SchedISO, specs.SchedDeadline:
	default:
		return fieldErr("process.scheduler.policy", "%q is not a policy", s.Policy)
	}
	for i, f := range s.Flags {
		switch f {
		case specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
			specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax:
		default:
			return fieldErr(fmt.Sprintf("process.scheduler.flags[%d]", i), "%q is not a flag", f)
		}
	}
	if s.Nice < -20 || s.Nice > 19 {
		return fieldErr("process.scheduler.nice", "%d is outside -20 to 19", s.Nice)
	}
	return nil
}
