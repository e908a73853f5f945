package countboot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	Total uint64 // executed until it returned, other tasks that ran meanwhile included
	Step  uint64 // as Total, but only if the function is one step of the boot: see bootSteps
	Calls uint64
	From  map[string]uint64 // Self, by the functions that called, nearest first
}

// Names of what is not a function of the kernel.
const (
	nameEarly = "(before paging)"
	nameUser  = "(user code)"
	nameRep   = "(of these REP iterations)"
)

// Profile boots the kernel with QEMU printing each block of code it runs and
// adds the instructions up by function. Its sum counts instructions only, no idle time; the
// difference to [Count] is what the boot waited.
func Profile(ctx context.Context, c Config) (costs []Cost, sum uint64, err error) {
	syms, err := readSymbols(c.Map)
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		err := p.RoutineRead(trace)
		if err != nil {
			cancel() // QEMU would wait for a reader for ever
		}
		done <- err
	}()
	_, err = c.boot(ctx, []string{"-d", "in_asm,exec,nochain", "-D", fifo}, func(line string) bool {
		_, number, ok := strings.Cut(line, bootcount.Prefix)
		if ok {
			tsc, _ = strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
		return ok
	})
	_, _ = trace.WriteString(endOfTrace)
	readErr := <-done
	_ = trace.Close()
	if readErr != nil {
		err = readErr // the reason for the other one
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

// bootSteps are the functions that do nothing but call one step of the boot
// after the other. What runs between two of their calls, whatever the task, is
// the cost of that step.
var bootSteps = []string{"x86_64_start_kernel", "start_kernel", "setup_arch", "kernel_init", "kernel_init_freeable", "do_one_initcall", "mm_core_init", "arch_cpu_finalize_init"}

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

	edges  map[chain]*uint64 // self, by function and caller
	edge   *uint64           // of the present function
	stack  []frame
	depth  []int // how often a function is on the stack
	steps  []uint64
	isSeq  []bool // function is one of bootSteps
	inStep int    // the step that runs, or -1
	now    uint64
	cur    int    // function of the last instruction, or -1
	lo     uint64 // its range
	hi     uint64
	last   uint64
}

// chain is a function and its callers, -1 for none.
type chain [5]int

type frame struct {
	fn    int
	since uint64 // value of now at the call
}

func newProfiler(s symbols, skip uint64) *profiler {
	n := len(s)
	p := &profiler{
		edges: map[chain]*uint64{},
		syms:  s, skip: skip, cur: -1, inStep: -1,
		self: make([]uint64, n), total: make([]uint64, n), calls: make([]uint64, n),
		steps: make([]uint64, n), depth: make([]int, n), isSeq: make([]bool, n),
	}
	for i, f := range s {
		p.isSeq[i] = slices.Contains(bootSteps, f.name)
	}
	return p
}

// RoutineRead is the life of the goroutine that reads the trace. QEMU prints a
// block of code when it translates it, and a line whenever it enters it:
//
//	IN:
//	0xffffffff81000000:  48 89 e5                 movq     %rsp, %rbp
//	0xffffffff81000003:  c3                       retq
//
//	Trace 0: 0x7fbba3800100 [0000000000000000/ffffffff81000000/000000b0/ff020200]
//
// "Stopped execution of TB chain before" says that the block just named did
// not run, for an interrupt came first.
func (p *profiler) RoutineRead(r io.Reader) error {
	var (
		in       = bufio.NewReaderSize(r, 1<<20)
		blocks   = map[string]block{} // by address in QEMU
		fresh    block                // being translated
		entered  block                // not yet known to have run
		addrMark = []byte("0x")
	)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("countboot: trace: %w", err)
		}
		switch {
		case bytes.Equal(line, []byte("end\n")):
			p.run(entered)
			return nil
		case bytes.HasPrefix(line, []byte("IN:")):
			fresh = block{}
		case bytes.HasPrefix(line, addrMark):
			end := bytes.IndexByte(line, ':')
			if pc, ok := hex64(line[len(addrMark):max(end, len(addrMark))]); ok && end > 0 {
				fresh.pcs = append(fresh.pcs, pc)
			}
		case bytes.HasPrefix(line, []byte("Stopped")):
			entered = block{}
		case bytes.HasPrefix(line, []byte("Trace ")):
			fields := bytes.Fields(line)
			if len(fields) < 4 || len(fields[3]) < 34 {
				continue // torn at the end
			}
			pc, ok := hex64(fields[3][18:34])
			if !ok {
				return fmt.Errorf("countboot: trace line %q", line)
			}
			if len(fresh.pcs) > 0 && fresh.pcs[0] == pc {
				blocks[string(fields[2])] = fresh
				fresh = block{}
			}
			p.run(entered)
			entered = blocks[string(fields[2])]
			if len(entered.pcs) == 0 || entered.pcs[0] != pc {
				return fmt.Errorf("countboot: no code for trace line %q", line)
			}
		}
	}
}

// block is what QEMU translates and runs at once.
type block struct{ pcs []uint64 }

func (p *profiler) run(b block) {
	for _, pc := range b.pcs {
		if p.seen++; p.seen >= p.skip {
			p.step(pc)
		}
	}
}

func hex64(b []byte) (v uint64, ok bool) {
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
		p.countStep()
		return
	}
	if pc <= p.lo || pc >= p.hi { // equal to lo: the function's first instruction, a call
		p.enter(pc)
	}
	if p.cur >= 0 {
		p.self[p.cur]++
		*p.edge++
	}
	p.countStep()
}

func (p *profiler) countStep() {
	if p.inStep >= 0 {
		p.steps[p.inStep]++
	}
}

// enter finds the function of pc and brings the stack up to date.
func (p *profiler) enter(pc uint64) {
	if pc == p.lo && p.cur >= 0 && p.atStartAgain(pc) {
		return
	}
	fn, caller := p.syms.find(pc), p.cur
	if p.cur = fn; fn < 0 {
		p.lo, p.hi = 0, 0
		return
	}
	p.lo, p.hi = p.syms[fn].addr, kernelBase+(kernelBase-1)
	if fn+1 < len(p.syms) {
		p.hi = p.syms[fn+1].addr
	}
	if p.isSeq[fn] || caller >= 0 && p.isSeq[caller] && pc == p.lo {
		p.inStep = fn
	}
	if pc == p.lo || p.depth[fn] == 0 {
		p.stack = append(p.stack, frame{fn, p.now - 1})
		p.depth[fn]++
		p.calls[fn]++
		p.findEdge(fn)
		return
	}
	for n := len(p.stack) - 1; p.stack[n].fn != fn; n-- {
		p.pop(p.now - 1)
	}
	p.findEdge(fn)
}

// findEdge is for fn on top of the stack.
func (p *profiler) findEdge(fn int) {
	key := chain{fn, -1, -1, -1, -1}
	for i := 1; i < len(key) && i < len(p.stack); i++ {
		key[i] = p.stack[len(p.stack)-1-i].fn
	}
	p.edge = p.edges[key]
	if p.edge == nil {
		p.edge = new(uint64)
		p.edges[key] = p.edge
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
	from := make([]map[string]uint64, len(p.syms))
	for key, n := range p.edges {
		var callers []string
		for _, fn := range key[1:] {
			if fn >= 0 {
				callers = append(callers, p.syms[fn].name)
			}
		}
		if from[key[0]] == nil {
			from[key[0]] = map[string]uint64{}
		}
		from[key[0]][strings.Join(callers, " < ")] += *n
	}
	for i, s := range p.syms {
		if p.self[i] > 0 {
			costs = append(costs, Cost{s.name, p.self[i], max(p.total[i], p.self[i]), p.steps[i], p.calls[i], from[i]})
		}
	}
	costs = append(costs, Cost{nameEarly, p.early, p.early, 0, 1, nil}, Cost{nameUser, p.user, p.user, 0, 1, nil}, Cost{nameRep, p.atRep, p.atRep, 0, 0, nil})
	sort.SliceStable(costs, func(i, j int) bool { return costs[i].Total > costs[j].Total })
	return costs, p.now
}
