//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/kvm"
)

// tracer is the host kernel's ftrace, reading the time stamp counter: under LAB_ICOUNT=1 that counts instructions, and
// what passes between kvm_entry and kvm_exit are the guest's.
type tracer struct {
	t   *testing.T
	dir string
}

func newTracer(t *testing.T) *tracer {
	t.Helper()
	tr := &tracer{t, t.TempDir()}
	if err := unix.Mount("tracefs", tr.dir, "tracefs", 0, ""); err != nil {
		t.Fatalf("mount tracefs: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(tr.dir, unix.MNT_DETACH)) })
	tr.set("trace_clock", "x86-tsc")
	tr.set("buffer_size_kb", "65536")
	for _, e := range []string{"kvm_entry", "kvm_exit", "kvm_page_fault"} {
		tr.set("events/kvm/"+e+"/enable", "1")
	}
	tr.set("tracing_on", "0")
	tr.set("trace", "")
	return tr
}

func (tr *tracer) set(file, value string) {
	tr.t.Helper()
	must(tr.t, os.WriteFile(filepath.Join(tr.dir, file), []byte(value), 0o600))
}

func (tr *tracer) mark(name string) { tr.set("trace_marker", name) }

// phase is what one stretch of a VM's life cost.
type phase struct {
	name         string
	guest, total uint64 // ticks of the TSC in the guest, and altogether
	entries      uint64
	exits        map[string]int
	faults       int // of nested paging
}

// phases reads the trace. Each mark ends a phase; the first begins with the first entry.
func (tr *tracer) phases() []phase {
	tr.t.Helper()
	text, err := os.ReadFile(filepath.Join(tr.dir, "trace"))
	must(tr.t, err)
	var all []phase
	cur := phase{exits: map[string]int{}}
	var entered, began, last uint64
	least := ^uint64(0)
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line := s.Text()
		ts, event, rest, ok := traceLine(line)
		if !ok {
			continue
		}
		last = ts
		switch event {
		case "kvm_entry":
			entered = ts
			if began == 0 {
				began = ts
			}
		case "kvm_exit":
			if entered != 0 {
				cur.guest += ts - entered
				cur.entries++
				least = min(least, ts-entered)
				entered = 0
			}
			if _, reason, ok := strings.Cut(rest, "reason "); ok {
				reason, _, _ = strings.Cut(reason, " ")
				cur.exits[reason]++
			}
		case "kvm_page_fault":
			cur.faults++
		case "tracing_mark_write":
			cur.name, cur.total = strings.TrimSpace(rest), last-began
			all = append(all, cur)
			cur, began = phase{exits: map[string]int{}}, last
		}
	}
	// The shortest stay in the guest is an instruction that faulted again at once: all of it is the host's way in and out,
	// with the tracing of it, which each stay has.
	for i := range all {
		all[i].guest -= all[i].entries * least
	}
	return all
}

// traceLine takes "task-pid [cpu] flags ticks: event: rest" apart.
func traceLine(line string) (ts uint64, event, rest string, ok bool) {
	if strings.HasPrefix(line, "#") {
		return 0, "", "", false
	}
	i := strings.Index(line, "] ")
	if i < 0 {
		return 0, "", "", false
	}
	parts := strings.SplitN(line[i+2:], ": ", 3)
	if len(parts) < 3 {
		return 0, "", "", false
	}
	f := strings.Fields(parts[0])
	ts, err := strconv.ParseUint(f[len(f)-1], 10, 64)
	return ts, strings.TrimSpace(parts[1]), parts[2], err == nil
}

// traceStart runs a container from the template in dir: to created, to started, to ended.
func traceStart(t *testing.T, dir string) (marks map[string]float64, phases []phase) {
	t.Helper()
	tr := newTracer(t)
	b := newBundle(t, "/bin/echo", "hello")
	plan := b.plan()
	tr.set("tracing_on", "1")
	x := spawnBox(t, control.Launch{Template: dir}, plan)
	if err := x.ready(); err != nil {
		t.Fatalf("%v\nlog: %s", err, x.log())
	}
	tr.mark("created")
	x.start()
	tr.mark("started")
	code := x.wait()
	tr.mark("ended")
	tr.set("tracing_on", "0")
	if out := x.stdout.String(); code != 0 || out != "hello\n" {
		t.Fatalf("status %d, output %q, log %s", code, out, x.log())
	}
	return x.timeline(), tr.phases()
}

// TestTemplatePreFault: nearly all pages that each clone touches are mapped before it runs, where KVM can. Without that
// a start has 1,650 nested page faults; what is left are pages that only this container takes.
func TestTemplatePreFault(t *testing.T) {
	sys, err := kvm.Open()
	must(t, err)
	defer sys.Close()
	if sys.CheckExtension(kvm.CapPreFaultMemory) == 0 {
		t.Fatal("this KVM has no KVM_PRE_FAULT_MEMORY: the test is for Linux 6.11 and later")
	}
	_, phases := traceStart(t, makeTemplate(t, machine(1)))
	faults := 0
	for _, p := range phases[:2] {
		t.Logf("to %s: %d nested page faults, exits %v", p.name, p.faults, p.exits)
		faults += p.faults
	}
	const most = 400
	if faults == 0 || faults > most {
		t.Errorf("%d nested page faults until the program runs, want 1 to %d", faults, most)
	}
}

// TestTemplateCost counts what a start from a template makes guest and host do. A tick is an instruction under
// LAB_ICOUNT=1, where L1 has only what LAB_MEMFILES brings; else it is only time. With STAGE a copy of bin and guest/out,
// STAGE/bin/e2e.test from `go test -c -tags e2e`, and TAR a tar with a static /bin/echo:
//
//	LAB_ICOUNT=1 LAB_MEMFILES="STAGE TAR" bin/lab \
//	  'LUCID_BIN=STAGE/bin LUCID_ROOTFS=TAR STAGE/bin/e2e.test -test.v -test.run TestTemplateCost'
func TestTemplateCost(t *testing.T) {
	dir := makeTemplate(t, machine(1))
	for round := range 2 {
		marks, phases := traceStart(t, dir)
		names := make([]string, 0, len(marks))
		for name := range marks {
			names = append(names, name)
		}
		sort.Slice(names, func(i, j int) bool { return marks[names[i]] < marks[names[j]] })
		for _, name := range names {
			t.Logf("round %d: mark %-13s %10.3f ms", round, name, marks[name])
		}
		for _, p := range phases {
			t.Logf("round %d: to %-8s guest %6.2f M of %6.2f M, %4d page faults, exits %v", round, p.name,
				float64(p.guest)/1e6, float64(p.total)/1e6, p.faults, p.exits)
		}
	}
}
