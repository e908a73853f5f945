package container

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
)

// schedPolicies are the policies of the OCI spec by their numbers, linux/sched.h.
var schedPolicies = [...]string{
	"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE",
}

// schedFlags are its flags by their bits, linux/sched.h.
var schedFlags = [...]string{
	"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY",
	"SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX",
}

// schedAttrSize is the size of struct sched_attr, SCHED_ATTR_SIZE_VER0.
const schedAttrSize = 48

// addScheduler adds process.scheduler.
func addScheduler(prog *spawn.Program, s *Scheduler) error {
	if s == nil {
		return nil
	}
	policy := slices.Index(schedPolicies[:], s.Policy)
	if policy < 0 {
		return invalidError("process.scheduler.policy: unknown policy " + quote(s.Policy))
	}
	flags := uint64(0)
	for _, name := range s.Flags {
		bit := slices.Index(schedFlags[:], name)
		if bit < 0 {
			return invalidError("process.scheduler.flags: unknown flag " + quote(name))
		}
		flags |= 1 << bit
	}
	// struct sched_attr, sched_setattr(2), in words of 64 bits.
	prog.Call("set scheduler", unix.SYS_SCHED_SETATTR, 0, spawn.Data(prog,
		schedAttrSize|uint64(policy)<<32, flags, uint64(uint32(s.Nice))|uint64(uint32(s.Priority))<<32,
		s.Runtime, s.Deadline, s.Period), 0)
	return nil
}

// linux/personality.h
const (
	perLinux   = 0
	perLinux32 = 8
)

// addPersonality adds linux.personality.
func addPersonality(prog *spawn.Program, p *Personality) error {
	if p == nil {
		return nil
	}
	domain := uintptr(perLinux)
	switch p.Domain {
	case "LINUX":
	case "LINUX32":
		domain = perLinux32
	default:
		return invalidError("linux.personality.domain: unknown domain " + quote(p.Domain))
	}
	prog.Call("set personality", unix.SYS_PERSONALITY, domain)
	return nil
}
