package seccomp_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci/seccomp"
)

// machine runs a filter in golang.org/x/net/bpf's virtual machine.
type machine struct{ vm *bpf.VM }

func compile(t *testing.T, p *specs.LinuxSeccomp) machine {
	t.Helper()
	f, err := seccomp.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	var raw []bpf.RawInstruction
	for b := f.Program; len(b) > 0; b = b[8:] {
		raw = append(raw, bpf.RawInstruction{Op: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])})
	}
	code, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("an instruction that nobody knows")
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

// run returns the filter's result. The virtual machine reads words in network
// order, where the kernel reads them in its own.
func (m machine) run(t *testing.T, arch, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	data := binary.BigEndian.AppendUint32(nil, nr)
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...) // instruction pointer
	for _, a := range args {
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	n, err := m.vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

const (
	amd64 = unix.AUDIT_ARCH_X86_64
	allow = unix.SECCOMP_RET_ALLOW
	errno = unix.SECCOMP_RET_ERRNO
	eperm = errno | uint32(unix.EPERM)
)

func number(n uint) *uint { return &n }

// profile has what docker's and podman's have: names of other machines, one
// name in several rules, masks, errnoRet, a lower and an upper bound.
func profile() *specs.LinuxSeccomp {
	arg := func(index uint, value, two uint64, op specs.LinuxSeccompOperator) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, ValueTwo: two, Op: op}
	}
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: number(uint(unix.EPERM)),
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "write", "openat", "execve", "arm_sync_file_range", "chown32", "statx"}, Action: specs.ActAllow},
			{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 0, 0, specs.OpEqualTo)}},
			{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 0xffffffff, 0, specs.OpEqualTo)}},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 0x7e020000, 0, specs.OpMaskedEqual)}},
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: number(uint(unix.ENOSYS))},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 40, 0, specs.OpNotEqual)}},
			{Names: []string{"ioctl"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{arg(1, 5, 0, specs.OpGreaterEqual), arg(1, 2, 0, specs.OpLessThan)}},
			{Names: []string{"fcntl"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{arg(1, 1<<40, 0, specs.OpGreaterThan), arg(2, 1<<33|7, 0, specs.OpLessEqual)}},
			{Names: []string{"ptrace"}, Action: specs.ActKillProcess},
			{Names: []string{"kill"}, Action: specs.ActTrace, ErrnoRet: number(9)},
			{Names: []string{"dup"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 3, 0, specs.OpEqualTo)}},
			{Names: []string{"dup"}, Action: specs.ActAllow},
		},
	}
}

func TestProfile(t *testing.T) {
	m := compile(t, profile())
	for _, c := range []struct {
		nr   uint32
		args [6]uint64
		want uint32
	}{
		{unix.SYS_READ, [6]uint64{}, allow},
		{unix.SYS_STATX, [6]uint64{}, allow},
		{unix.SYS_MOUNT, [6]uint64{}, eperm},
		{unix.SYS_PERSONALITY, [6]uint64{}, allow},
		{unix.SYS_PERSONALITY, [6]uint64{0xffffffff}, allow},
		{unix.SYS_PERSONALITY, [6]uint64{1 << 32}, eperm},
		{unix.SYS_PERSONALITY, [6]uint64{8}, eperm},
		{unix.SYS_CLONE, [6]uint64{17}, allow},
		{unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWUSER | 17}, eperm},
		{unix.SYS_CLONE3, [6]uint64{}, errno | uint32(unix.ENOSYS)},
		{unix.SYS_SOCKET, [6]uint64{40}, eperm},
		{unix.SYS_SOCKET, [6]uint64{40 | 1<<32}, allow},
		{unix.SYS_SOCKET, [6]uint64{2}, allow},
		{unix.SYS_IOCTL, [6]uint64{0, 1}, unix.SECCOMP_RET_TRAP},
		{unix.SYS_IOCTL, [6]uint64{0, 5}, unix.SECCOMP_RET_TRAP},
		{unix.SYS_IOCTL, [6]uint64{0, 3}, eperm},
		{unix.SYS_FCNTL, [6]uint64{0, 1<<40 + 1, 1<<33 | 7}, unix.SECCOMP_RET_LOG},
		{unix.SYS_FCNTL, [6]uint64{0, 1 << 40, 0}, eperm},
		{unix.SYS_FCNTL, [6]uint64{0, 1 << 41, 1<<33 | 8}, eperm},
		{unix.SYS_PTRACE, [6]uint64{}, unix.SECCOMP_RET_KILL_PROCESS},
		{unix.SYS_KILL, [6]uint64{}, unix.SECCOMP_RET_TRACE | 9},
		{unix.SYS_DUP, [6]uint64{4}, allow},
		// Above all that the profile names: unknown to it, and not refused by it.
		{unix.SYS_CLONE3 + 1, [6]uint64{}, errno | uint32(unix.ENOSYS)},
		{9999, [6]uint64{}, errno | uint32(unix.ENOSYS)},
		{0x40000000 | unix.SYS_READ, [6]uint64{}, errno | uint32(unix.ENOSYS)},
	} {
		if got := m.run(t, amd64, c.nr, c.args); got != c.want {
			t.Errorf("system call %d %x: %#x, want %#x", c.nr, c.args, got, c.want)
		}
	}
	if got := m.run(t, unix.AUDIT_ARCH_I386, unix.SYS_READ, [6]uint64{}); got != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("a 32-bit call: %#x", got)
	}
	p := profile()
	p.Architectures = []specs.Arch{specs.ArchX86_64}
	if got := compile(t, p).run(t, amd64, 0x40000000|unix.SYS_READ, [6]uint64{}); got != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("an x32 call: %#x", got)
	}
}

// TestDefaults: a default that allows also allows what it has never heard of.
func TestDefaults(t *testing.T) {
	for action, want := range map[specs.LinuxSeccompAction]uint32{
		specs.ActAllow: allow, specs.ActLog: unix.SECCOMP_RET_LOG, specs.ActTrace: unix.SECCOMP_RET_TRACE | 1,
		specs.ActErrno: errno | uint32(unix.ENOSYS), specs.ActKill: errno | uint32(unix.ENOSYS), specs.ActTrap: errno | uint32(unix.ENOSYS),
	} {
		m := compile(t, &specs.LinuxSeccomp{DefaultAction: action, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActKillProcess}}})
		if got := m.run(t, amd64, 400, [6]uint64{}); got != want {
			t.Errorf("%s: %#x, want %#x", action, got, want)
		}
		if got := m.run(t, amd64, unix.SYS_MKDIR, [6]uint64{}); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("%s: mkdir %#x", action, got)
		}
	}
	if f, err := seccomp.Compile(nil); f != nil || err != nil {
		t.Errorf("no profile: %v, %v", f, err)
	}
	f, err := seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{
		specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC",
	}})
	if err != nil || f.Flags != unix.SECCOMP_FILTER_FLAG_LOG|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW {
		t.Errorf("flags: %+v, %v", f, err)
	}
}

func TestErrors(t *testing.T) {
	one := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{s}}
	}
	read := []string{"read"}
	for want, p := range map[string]*specs.LinuxSeccomp{
		`defaultAction: "" is not an action`:              {},
		`defaultAction: "SCMP_ACT_X" is not`:              {DefaultAction: "SCMP_ACT_X"},
		`defaultErrnoRet: goes with`:                      {DefaultAction: specs.ActAllow, DefaultErrnoRet: number(1)},
		`defaultErrnoRet: 65536 is not an errno`:          {DefaultAction: specs.ActErrno, DefaultErrnoRet: number(65536)},
		`architectures[0]: "SCMP_ARCH_VAX" is not`:        {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}},
		`flags[0]: "SECCOMP_FILTER_FLAG_NEW_LISTENER" is`: {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NEW_LISTENER"}},
		`listenerPath: not supported`:                     {DefaultAction: specs.ActAllow, ListenerPath: "/run/x"},
		`syscalls[0].names: must not be empty`:            one(specs.LinuxSyscall{Action: specs.ActErrno}),
		`syscalls[0].action: "" is not`:                   one(specs.LinuxSyscall{Names: read}),
		`syscalls[0].action: SCMP_ACT_NOTIFY`:             one(specs.LinuxSyscall{Names: read, Action: specs.ActNotify}),
		`syscalls[0].errnoRet: goes with`:                 one(specs.LinuxSyscall{Names: read, Action: specs.ActKill, ErrnoRet: number(1)}),
		`syscalls[0].args[0].index: 6 is not`:             one(specs.LinuxSyscall{Names: read, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		`syscalls[0].args[0].op: "EQ" is not`:             one(specs.LinuxSyscall{Names: read, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "EQ"}}}),
		`instructions, the kernel takes 4096`:             one(many()),
	} {
		_, err := seccomp.Compile(p)
		var field *seccomp.Error
		if err == nil || !errors.As(err, &field) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "linux.seccomp.") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// many is a rule that does not fit.
func many() specs.LinuxSyscall {
	s := specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno}
	for i := range 1000 {
		s.Args = append(s.Args, specs.LinuxSeccompArg{Value: uint64(i), Op: specs.OpEqualTo})
	}
	return s
}

// matches is what an operator means, said once more.
func matches(a specs.LinuxSeccompArg, args [6]uint64) bool {
	v := args[a.Index]
	return map[specs.LinuxSeccompOperator]bool{
		specs.OpEqualTo: v == a.Value, specs.OpNotEqual: v != a.Value, specs.OpLessThan: v < a.Value, specs.OpLessEqual: v <= a.Value,
		specs.OpGreaterThan: v > a.Value, specs.OpGreaterEqual: v >= a.Value, specs.OpMaskedEqual: v&a.Value == a.ValueTwo,
	}[a.Op]
}

// TestRandomProfiles compares filters with a model of them, for every number.
func TestRandomProfiles(t *testing.T) {
	names := table(t)
	byNumber := map[uint32]string{}
	var all []string
	for name, nr := range names {
		byNumber[nr] = name
		all = append(all, name)
	}
	r := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 2, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1 << 63, 1<<64 - 1}
	pick := func() uint64 { return values[r.IntN(len(values))] }
	actions := map[specs.LinuxSeccompAction]uint32{specs.ActAllow: allow, specs.ActErrno: eperm, specs.ActTrap: unix.SECCOMP_RET_TRAP}
	list := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActTrap}
	for range 30 {
		p := &specs.LinuxSeccomp{DefaultAction: list[r.IntN(len(list))]}
		for range r.IntN(40) {
			s := specs.LinuxSyscall{Action: list[r.IntN(len(list))]}
			for range 1 + r.IntN(30) {
				s.Names = append(s.Names, all[r.IntN(len(all))])
			}
			for _, index := range r.Perm(6)[:r.IntN(4)] {
				s.Args = append(s.Args, specs.LinuxSeccompArg{
					Index: uint(index), Value: pick(), ValueTwo: pick(), Op: specs.LinuxSeccompOperator(seccomp.Operators[r.IntN(len(seccomp.Operators))]),
				})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		m := compile(t, p)
		for nr := range uint32(500) {
			args := [6]uint64{pick(), pick(), pick(), pick(), pick(), pick()}
			if got, want := m.run(t, amd64, nr, args), model(p, names, nr, byNumber[nr], args, actions); got != want {
				t.Fatalf("%d (%s) %x: %#x, want %#x in %+v", nr, byNumber[nr], args, got, want, p)
			}
		}
	}
}

func model(p *specs.LinuxSeccomp, names map[string]uint32, nr uint32, name string, args [6]uint64, actions map[specs.LinuxSeccompAction]uint32) uint32 {
	highest, result := -1, actions[p.DefaultAction]
	found, sure := false, false
	for _, s := range p.Syscalls {
		for _, n := range s.Names {
			highest = max(highest, int(names[n]))
			if n != name || s.Action == p.DefaultAction {
				continue
			}
			all := true
			for _, a := range s.Args {
				all = all && matches(a, args)
			}
			if len(s.Args) == 0 && !sure {
				result, sure = actions[s.Action], true // beats all
			} else if all && !found && !sure {
				result, found = actions[s.Action], true
			}
		}
	}
	if int(nr) > highest && p.DefaultAction != specs.ActAllow {
		return errno | uint32(unix.ENOSYS)
	}
	return result
}

// table reads the package's own list.
func table(t *testing.T) map[string]uint32 {
	t.Helper()
	f, err := os.Open("syscalls.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := map[string]uint32{}
	for s := bufio.NewScanner(f); s.Scan(); {
		var nr uint32
		var name string
		if _, err := fmt.Sscanf(s.Text(), "%d %s", &nr, &name); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		m[name] = nr
	}
	return m
}

// TestTable compares the list with another one.
func TestTable(t *testing.T) {
	m := table(t)
	for name, nr := range map[string]uint32{"read": 0, "execve": unix.SYS_EXECVE, "clone3": unix.SYS_CLONE3, "mseal": unix.SYS_MSEAL, "openat2": unix.SYS_OPENAT2} {
		if got, ok := m[name]; !ok || got != nr {
			t.Errorf("%s: %d, want %d", name, got, nr)
		}
	}
	header, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
	if err != nil {
		t.Logf("without the C library's headers (apt-get install linux-libc-dev) only some are compared: %v", err)
		return
	}
	for _, match := range regexp.MustCompile(`#define __NR_(\w+) (\d+)`).FindAllStringSubmatch(string(header), -1) {
		if nr, _ := strconv.Atoi(match[2]); m[match[1]] != uint32(nr) && nr <= 462 {
			t.Errorf("%s: %d, the header has %d", match[1], m[match[1]], nr)
		}
	}
}
