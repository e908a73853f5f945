package seccomp

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile.
type Filter struct {
	// Program is an array of struct sock_filter, linux/filter.h.
	Program []byte
	// Flags are SECCOMP_FILTER_FLAG_… of seccomp(2).
	Flags uint32
}

// Error says which field of linux.seccomp cannot be compiled.
type Error struct {
	Field string // such as "syscalls[3].args[0].op"
	Text  string
}

func (e *Error) Error() string { return "linux.seccomp." + e.Field + ": " + e.Text }

func fail(field, format string, args ...any) error {
	return &Error{Field: field, Text: fmt.Sprintf(format, args...)}
}

// syscallTable has a number and a name per line, from the guest kernel's
// arch/x86/entry/syscalls/syscall_64.tbl.
//
//go:embed syscalls.txt
var syscallTable string

// numbers parses the table: once per filter, which takes microseconds, and not
// in each command that has none.
func numbers() map[string]uint32 {
	m := make(map[string]uint32, 400)
	for line := range strings.Lines(syscallTable) {
		nr, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(nr, 10, 32); err == nil {
			m[name] = uint32(n)
		}
	}
	return m
}

// rule is one way to match a system call.
type rule struct {
	args   []specs.LinuxSeccompArg // all must match; empty: always
	action uint32
}

// call is all that a profile says about one system call.
type call struct {
	nr    uint32
	rules []rule
}

// Compile returns the filter; nil for no profile.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	if p == nil {
		return nil, nil
	}
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		return nil, fail("listenerPath", "not supported: the filter is in a VM and cannot notify a program of the host")
	}
	flags, err := parseFlags(p.Flags)
	if err != nil {
		return nil, err
	}
	if err := checkArchitectures(p.Architectures); err != nil {
		return nil, err
	}
	def, err := parseAction("defaultAction", "defaultErrnoRet", p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	calls, highest, err := gather(p, def)
	if err != nil {
		return nil, err
	}
	enosys := unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	above := enosys
	if permissive(p.DefaultAction) {
		above = def
	}
	x32 := uint32(unix.SECCOMP_RET_KILL_THREAD)
	if slices.Contains(p.Architectures, specs.ArchX32) {
		x32 = enosys // what the guest's kernel says by itself
	}
	code := assemble(calls, def, above, highest, x32)
	if len(code) > unix.BPF_MAXINSNS {
		return nil, fail("syscalls", "%d instructions, the kernel takes %d", len(code), unix.BPF_MAXINSNS)
	}
	return &Filter{Program: encode(code), Flags: flags}, nil
}

// gather sorts the rules by system call. highest is the largest number that the
// profile names, -1 for none.
func gather(p *specs.LinuxSeccomp, def uint32) (calls []call, highest int64, err error) {
	table := numbers()
	byNumber := map[uint32][]rule{}
	highest = -1
	for i, s := range p.Syscalls {
		field := fmt.Sprintf("syscalls[%d]", i)
		if len(s.Names) == 0 {
			return nil, 0, fail(field+".names", "must not be empty")
		}
		action, err := parseAction(field+".action", field+".errnoRet", s.Action, s.ErrnoRet)
		if err != nil {
			return nil, 0, err
		}
		rules, err := rulesOf(field, s.Args, action)
		if err != nil {
			return nil, 0, err
		}
		for _, name := range s.Names {
			nr, known := table[name]
			if !known {
				continue
			}
			highest = max(highest, int64(nr))
			if action != def {
				byNumber[nr] = append(byNumber[nr], rules...)
			}
		}
	}
	for nr, rules := range byNumber {
		if i := slices.IndexFunc(rules, func(r rule) bool { return len(r.args) == 0 }); i >= 0 {
			rules = rules[i : i+1]
		}
		calls = append(calls, call{nr, rules})
	}
	slices.SortFunc(calls, func(a, b call) int { return int(a.nr) - int(b.nr) })
	return calls, highest, nil
}

// rulesOf splits args that name one index twice.
func rulesOf(field string, args []specs.LinuxSeccompArg, action uint32) ([]rule, error) {
	var seen [6]bool
	twice := false
	for i, a := range args {
		field := fmt.Sprintf("%s.args[%d]", field, i)
		if a.Index >= uint(len(seen)) {
			return nil, fail(field+".index", "%d is not an argument, the last one is %d", a.Index, len(seen)-1)
		}
		if !slices.Contains(Operators, string(a.Op)) {
			return nil, fail(field+".op", "%q is not an operator", a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return []rule{{args, action}}, nil
	}
	var rules []rule
	for i := range args {
		rules = append(rules, rule{args[i : i+1], action})
	}
	return rules, nil
}

// encode turns instructions into what the kernel reads.
func encode(code []instruction) []byte {
	var out []byte
	for _, c := range code {
		out = binary.LittleEndian.AppendUint16(out, c.op)
		out = append(out, c.jt, c.jf)
		out = binary.LittleEndian.AppendUint32(out, c.k)
	}
	return out
}

// Actions, Operators, Architectures and Flags are what Compile takes, as
// features prints it.
var (
	Actions = []string{
		string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill), string(specs.ActKillProcess),
		string(specs.ActKillThread), string(specs.ActLog), string(specs.ActTrace), string(specs.ActTrap),
	}
	Operators = []string{
		string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan), string(specs.OpLessEqual),
		string(specs.OpLessThan), string(specs.OpMaskedEqual), string(specs.OpNotEqual),
	}
	Architectures = []string{string(specs.ArchX86_64)}
	Flags         = []string{
		string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), "SECCOMP_FILTER_FLAG_TSYNC",
	}
)

func parseFlags(list []specs.LinuxSeccompFlag) (flags uint32, err error) {
	for i, f := range list {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The process has one thread.
		default:
			return 0, fail(fmt.Sprintf("flags[%d]", i), "%q is not supported", f)
		}
	}
	return flags, nil
}

// checkArchitectures accepts all of the specification's: a profile lists more
// than one machine has. The guest runs x86-64 whether it is listed or not, as
// libseccomp adds the native one.
func checkArchitectures(list []specs.Arch) error {
	for i, a := range list {
		if !slices.Contains(knownArchitectures, a) {
			return fail(fmt.Sprintf("architectures[%d]", i), "%q is not an architecture", a)
		}
	}
	return nil
}

var knownArchitectures = []specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
	specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
	specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
	specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// permissive are the defaults under which an unknown system call is no refusal.
func permissive(a specs.LinuxSeccompAction) bool {
	return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace
}

// parseAction returns a filter's return value, linux/seccomp.h.
func parseAction(field, errnoField string, a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(0)
	switch a {
	case specs.ActErrno, specs.ActTrace:
		data = uint32(syscall.EPERM)
		if errnoRet != nil {
			if *errnoRet > unix.SECCOMP_RET_DATA {
				return 0, fail(errnoField, "%d is not an errno", *errnoRet)
			}
			data = uint32(*errnoRet)
		}
	default:
		if errnoRet != nil {
			return 0, fail(errnoField, "goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not with %q", a)
		}
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActNotify:
		return 0, fail(field, "%s is not supported: the filter is in a VM and cannot notify a program of the host", a)
	}
	return 0, fail(field, "%q is not an action", a)
}
