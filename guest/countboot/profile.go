package countboot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/lucid-containers/lucid/guest/bootcount"
)

// Cost is what one function of the guest costs, in instructions.
type Cost struct {
	Name  string
	Self  uint64 // executed in the function itself
	Total uint64 // executed until it returned
	Calls uint64
}

// Names of what is not a function of the kernel.
const (
	nameEarly = "(before paging)"
	nameUser  = "(user code)"
)

// Profile boots the kernel with QEMU printing every single instruction and adds
// them up by function. Its sum counts instructions only, no idle time; the
// difference to [Count] is what the boot waited. systemMap is the kernel's.
func Profile(ctx context.Context, c Config, systemMap string) (costs []Cost, sum uint64, err error) {
	syms, err := readSymbols(systemMap)
	if err != nil {
		return nil, 0, err
	}
	firmware, err := countFirmware(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	dir, err := os.MkdirTemp("", "countboot-")
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fifo := filepath.Join(dir, "trace")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		return nil, 0, os.NewSyscallError("mkfifo", err)
	}
	// Opened for writing too, so that neither end blocks in open and the
	// reader sees no end before stop closes it.
	trace, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	p := newProfiler(syms, firmware)
	var (
		tsc  uint64
		done = make(chan error, 1)
	)
	go func() { done <- p.RoutineRead(trace) }()
	err = c.boot(ctx, []string{"-d", "exec,nochain", "-singlestep", "-D", fifo}, func(line string) bool {
		_, number, ok := strings.Cut(line, bootcount.Prefix)
		if ok {
			tsc, _ = strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
		return ok
	})
	_, _ = trace.WriteString(endOfTrace)
	readErr := <-done
	_ = trace.Close()
	if err == nil {
		err = readErr
	}
	if err != nil {
		return nil, 0, err
	}
	costs, sum = p.costs()
	if tsc == 0 {
		err = errNoReport
	}
	return costs, sum, err
}

// endOfTrace is what Profile writes behind QEMU's last line.
const endOfTrace = "\nend\n"

// profiler follows the program counter. It keeps a stack of functions: landing
// on the first instruction of a function is a call, landing within one that is
// on the stack is a return to it, and landing anywhere else is a switch to
// another task or an interrupt, which starts a new stack.
type profiler struct {
	syms  symbols
	skip  uint64 // instructions of the firmware
	seen  uint64
	self  []uint64 // by index of syms
	total []uint64
	calls []uint64
	early uint64
	user  uint64
	atRep uint64 // instructions that repeated the one before: REP iterations

	stack []frame
	depth []int // how often a function is on the stack
	now   uint64
	cur   int    // function of the last instruction, or -1
	lo    uint64 // its range
	hi    uint64
	last  uint64
}

type frame struct {
	fn    int
	since uint64 // value of now at the call
}

func newProfiler(s symbols, skip uint64) *profiler {
	n := len(s)
	return &profiler{syms: s, skip: skip, self: make([]uint64, n), total: make([]uint64, n), calls: make([]uint64, n), depth: make([]int, n), cur: -1}
}

// RoutineRead is the life of the goroutine that reads the trace:
//
//	Trace 0: 0x7fbba3800100 [00000000ffff0000/00000000fffffff0/00000040/ff020201]
func (p *profiler) RoutineRead(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("countboot: trace: %w", err)
		}
		if bytes.Equal(line, []byte("end\n")) {
			return nil
		}
		i := bytes.IndexByte(line, '/')
		if i < 0 || len(line) < i+17 || !bytes.HasPrefix(line, []byte("Trace ")) {
			continue // a line torn at the end, or a message of QEMU
		}
		pc, ok := hex16(line[i+1 : i+17])
		if !ok {
			return fmt.Errorf("countboot: trace line %q", line)
		}
		if p.seen++; p.seen >= p.skip {
			p.step(pc)
		}
	}
}

func hex16(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// step counts one instruction.
func (p *profiler) step(pc uint64) {
	p.now++
	if pc == p.last {
		p.atRep++
	}
	p.last = pc
	switch {
	case pc < kernelBase && p.user == 0 && len(p.stack) == 0:
		p.early++
		return
	case pc < kernelBase:
		p.user++
		p.cur, p.lo, p.hi = -1, 0, 0
		return
	}
	if pc <= p.lo || pc >= p.hi { // equal to lo: the function's first instruction, a call
		p.enter(pc)
	}
	if p.cur >= 0 {
		p.self[p.cur]++
	}
}

// enter finds the function of pc and brings the stack up to date.
func (p *profiler) enter(pc uint64) {
	if pc == p.lo && p.cur >= 0 && p.atStartAgain(pc) {
		return
	}
	fn := p.syms.find(pc)
	if p.cur = fn; fn < 0 {
		p.lo, p.hi = 0, 0
		return
	}
	p.lo, p.hi = p.syms[fn].addr, kernelBase+(kernelBase-1)
	if fn+1 < len(p.syms) {
		p.hi = p.syms[fn+1].addr
	}
	if pc == p.lo || p.depth[fn] == 0 {
		p.stack = append(p.stack, frame{fn, p.now - 1})
		p.depth[fn]++
		p.calls[fn]++
		return
	}
	for n := len(p.stack) - 1; p.stack[n].fn != fn; n-- {
		p.pop(p.now - 1)
	}
}

// atStartAgain tells a REP instruction that begins a function from a call to
// it: memset's and clear_page's first instruction is none, so only the
// repetition of one address counts.
func (p *profiler) atStartAgain(pc uint64) bool {
	return len(p.stack) > 0 && p.stack[len(p.stack)-1].since == p.now-2 && p.last == pc
}

// pop ends the newest call, after end instructions.
func (p *profiler) pop(end uint64) {
	f := p.stack[len(p.stack)-1]
	p.stack = p.stack[:len(p.stack)-1]
	p.depth[f.fn]--
	if p.depth[f.fn] == 0 { // the outermost of a recursion covers the rest
		p.total[f.fn] += end - f.since
	}
}

// costs ends the profile; the dearest functions come first.
func (p *profiler) costs() (costs []Cost, sum uint64) {
	for len(p.stack) > 0 {
		p.pop(p.now)
	}
	for i, s := range p.syms {
		if p.self[i] > 0 {
			costs = append(costs, Cost{s.name, p.self[i], max(p.total[i], p.self[i]), p.calls[i]})
		}
	}
	for _, c := range []Cost{{nameEarly, p.early, p.early, 1}, {nameUser, p.user, p.user, 1}, {"(of these REP iterations)", p.atRep, p.atRep, 0}} {
		costs = append(costs, c)
	}
	sort.SliceStable(costs, func(i, j int) bool { return costs[i].Total > costs[j].Total })
	return costs, p.now
}
