package container

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/internal/wire"
)

// rlimits are the names of the OCI spec by their numbers,
// asm-generic/resource.h. A list and not a map: a map is built when the agent
// starts, on every container's way.
var rlimits = [...]string{
	"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", rlimitNoFile: "NOFILE", "MEMLOCK", "AS",
	"LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
}

const rlimitNoFile = 7

// rlimitNumber returns the number of a limit, or -1.
func rlimitNumber(name string) int {
	if short, ok := strings.CutPrefix(name, "RLIMIT_"); ok {
		return slices.Index(rlimits[:], short)
	}
	return -1
}

// Go raises the soft limit of open files when it starts, so the child of the
// agent always gets one: without one in the spec what systemd gives services.
const (
	defaultNoFileSoft = 1024
	defaultNoFileHard = 512 << 10
)

// defaultUmask is what runc's processes have.
const defaultUmask = 0o022

// surroundings are what the processes of a container share, and what is done to
// each of them.
type surroundings struct {
	personality *Personality
	filter      *wire.Seccomp // nil: none
	newUser     bool          // there is a user namespace
	newTime     bool          // there is a time namespace, with these offsets
	offsets     map[string]TimeOffset
}

// limits returns the program that needs the guest's root: it comes before the
// user namespace.
func limits(p *Process, around *surroundings) (*spawn.Program, error) {
	prog := new(spawn.Program)
	if err := addRlimits(prog, p.Rlimits); err != nil {
		return nil, err
	}
	if err := addScheduler(prog, p.Scheduler); err != nil {
		return nil, err
	}
	if around.newTime {
		// From its execve on, time_namespaces(7).
		prog.Call("unshare time namespace", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
	}
	return prog, addPersonality(prog, around.personality)
}

// finish returns the program that makes the child the process p, all but the
// execve. The order matters: descriptors are closed before the working
// directory is entered (runc CVE-2024-21626), and privileges go last.
func finish(p *Process, child [3]int, around *surroundings) (*spawn.Program, []string) {
	prog := new(spawn.Program)
	prog.Call("unshare descriptors", unix.SYS_UNSHARE, unix.CLONE_FILES)
	for i, fd := range child {
		prog.Call("set up stdio", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	prog.Call("close descriptors", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), 0)
	prog.Call("setsid", unix.SYS_SETSID)
	if p.Terminal {
		prog.Call("set controlling terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	umask := uint32(defaultUmask)
	if p.User.Umask != nil {
		umask = *p.User.Umask & 0o777
	}
	prog.Call("set umask", unix.SYS_UMASK, uintptr(umask))
	prog.Call("chdir to cwd ("+quote(p.Cwd)+")", unix.SYS_CHDIR, prog.String(p.Cwd))
	// The agent's own may be longer (tick_step=, guest/kernel/source.edits).
	prog.Call("set timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(defaultTimerSlack.Nanoseconds()))
	warnings := addCredentials(prog, p, around.filter)
	if p.NoNewPrivileges {
		prog.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	return prog, warnings
}

// defaultTimerSlack is Linux's (init/init_task.c).
const defaultTimerSlack = 50 * time.Microsecond

func addRlimits(prog *spawn.Program, list []Rlimit) error {
	// Without CAP_SYS_RESOURCE, which an agent in a test may lack, the hard
	// limit cannot be raised.
	prog.Try("set default rlimit", unix.SYS_PRLIMIT64, 0, rlimitNoFile,
		spawn.Data[uint64](prog, defaultNoFileSoft, defaultNoFileHard), 0)
	for _, l := range list {
		nr := rlimitNumber(l.Type)
		if nr < 0 {
			return invalidError("process.rlimits: unknown type " + quote(l.Type))
		}
		prog.Call("set rlimit", unix.SYS_PRLIMIT64, 0, uintptr(nr), spawn.Data(prog, l.Soft, l.Hard), 0)
	}
	return nil
}

// addCredentials adds user, groups and capabilities, in runc's order: bounding
// set while there is CAP_SETPCAP, groups while there is CAP_SETGID, and the
// rest when the user is the process's own.
func addCredentials(prog *spawn.Program, p *Process, filter *wire.Seccomp) (warnings []string) {
	var sets [5]capSet
	seen := make(map[string]bool)
	for i, names := range capabilitySets(p) {
		set, unknown := parseCaps(names)
		sets[i] = set
		for _, u := range unknown {
			if !seen[u] {
				seen[u] = true
				warnings = append(warnings, "unknown capability "+quote(u)+" ignored")
			}
		}
	}
	dropBounding(prog, sets[0])
	// The capabilities would go with the last uid 0.
	prog.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	groups := p.User.AdditionalGids
	prog.Call("set groups", unix.SYS_SETGROUPS, uintptr(len(groups)), spawn.Data(prog, groups...))
	gid, uid := uintptr(p.User.GID), uintptr(p.User.UID)
	prog.Call("set gid", unix.SYS_SETRESGID, gid, gid, gid)
	prog.Call("set uid", unix.SYS_SETRESUID, uid, uid, uid)
	prog.Call("do not keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
	extra := capSet(0)
	if filter != nil && !p.NoNewPrivileges {
		extra = capSysAdmin // until execProgram
	}
	setCaps(prog, sets[1]|extra, sets[2]|extra, sets[3])
	raiseAmbient(prog, sets[4]&sets[2]&sets[3])
	return warnings
}

// capabilitySets are the names in the order bounding, effective, permitted,
// inheritable, ambient.
func capabilitySets(p *Process) [5][]string {
	c := p.Capabilities
	if c == nil {
		c = new(Capabilities)
	}
	return [5][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient}
}

// execProgram returns the last program of a child. The seccomp filter comes as
// late as can be: what it forbids concerns the container's program, and not
// what makes its process. Without no_new_privs it takes CAP_SYS_ADMIN, seccomp(2),
// which goes afterwards, so such a filter has to allow capset, as with runc.
func execProgram(p *Process, file string, filter *wire.Seccomp) *spawn.Program {
	prog := new(spawn.Program)
	if filter != nil {
		addFilter(prog, filter)
		if !p.NoNewPrivileges {
			names := capabilitySets(p)
			effective, _ := parseCaps(names[1])
			permitted, _ := parseCaps(names[2])
			inheritable, _ := parseCaps(names[3])
			setCaps(prog, effective, permitted, inheritable)
		}
	}
	prog.Call("execve", unix.SYS_EXECVE, prog.String(file), prog.Strings(p.Args), prog.Strings(p.Env))
	return prog
}
