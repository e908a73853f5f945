package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Better says which of two values is the better one.
type Better string

// The two directions.
const (
	Less Better = "less"
	More Better = "more"
)

// Result is what was measured of one subject.
type Result struct {
	Case    string    `json:"case"`             // "start"
	Subject string    `json:"subject"`          // "lucid", "runc", …
	Metric  string    `json:"metric,omitempty"` // "first byte of echo"
	Unit    string    `json:"unit,omitempty"`   // "ms", "MB/s", "instructions", …
	Better  Better    `json:"better,omitempty"`
	Values  []float64 `json:"values,omitempty"` // one per run, in the order of the runs
	Series  bool      `json:"series,omitempty"` // the values are a curve, not runs of one thing
	Stack   bool      `json:"stack,omitempty"`  // the metric is a part of a whole: what the subject's stacked metrics add up to
	Skipped string    `json:"skipped,omitempty"`
}

// Machine is where a run took place.
type Machine struct {
	Date   time.Time `json:"date"`
	Commit string    `json:"commit,omitempty"`
	CPU    string    `json:"cpu"`
	CPUs   int       `json:"cpus"`
	MemMiB int       `json:"memMiB"`
	Kernel string    `json:"kernel"`
	KVM    bool      `json:"kvm"`            // /dev/kvm can be opened
	Soft   bool      `json:"soft,omitempty"` // the CPU has neither VMX nor SVM: that KVM interprets guest kernels
	Lab    bool      `json:"lab,omitempty"`  // an emulated host, docs/lab.md
	Load   float64   `json:"load,omitempty"` // average of one minute at the start
}

// String is one line for readers.
func (m Machine) String() string {
	where := "this machine"
	if m.Lab {
		where = "the lab (an emulated host)"
	}
	kvm := "no /dev/kvm"
	if m.KVM {
		kvm = "/dev/kvm"
	}
	if m.KVM && m.Soft {
		kvm = "software /dev/kvm (guest kernels are interpreted)"
	}
	return fmt.Sprintf("%s: %d× %s, %d MiB, Linux %s, %s, load %.1f; %s, commit %s",
		where, m.CPUs, m.CPU, m.MemMiB, m.Kernel, kvm, m.Load, m.Date.UTC().Format("2006-01-02 15:04 MST"), m.Commit)
}

// ThisMachine describes where we are.
func ThisMachine(commit string) Machine {
	m := Machine{Date: time.Now(), Commit: commit, CPUs: runtime.NumCPU(), Lab: os.Getenv("LUCID_LAB") == "1"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // a description: nothing depends on it
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
		} else if ok && strings.TrimSpace(name) == "flags" {
			flags := strings.Fields(value)
			m.Soft = !slices.Contains(flags, "vmx") && !slices.Contains(flags, "svm")
			break // the other CPUs are alike
		}
	}
	if kb, err := procField("/proc/meminfo", "MemTotal:"); err == nil {
		m.MemMiB = int(kb >> 10)
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		m.KVM = true
		_ = f.Close()
	}
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	m.Load, _ = strconv.ParseFloat(first, 64)
	return m
}

// procField reads "NAME  N kB" of a file of /proc; in kB.
func procField(path, name string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// Runs is a file of results: those of one machine, or of several one after the other.
type Runs []MachineRun

// MachineRun is what one invocation measured.
type MachineRun struct {
	Machine Machine
	Results []Result
}

// line is one line of the file: the first of a run has the machine.
type line struct {
	Machine *Machine `json:"machine,omitempty"`
	*Result
}

// Write appends a run to w as JSON lines.
func Write(w io.Writer, r MachineRun) error {
	if err := json.NewEncoder(w).Encode(line{Machine: &r.Machine}); err != nil {
		return err
	}
	return WriteResults(w, r.Results)
}

// WriteResults appends results to a run that Write has begun.
func WriteResults(w io.Writer, results []Result) error {
	enc := json.NewEncoder(w)
	for i := range results {
		if err := enc.Encode(line{Result: &results[i]}); err != nil {
			return err
		}
	}
	return nil
}

// ErrFormat is wrapped by what Read says about a file that is none of ours.
var ErrFormat = errors.New("not a file of results")

// Read reads what Write has written, once or more.
func Read(r io.Reader) (Runs, error) {
	var runs Runs
	in := bufio.NewScanner(r)
	in.Buffer(nil, 16<<20)
	for n := 1; in.Scan(); n++ {
		if strings.TrimSpace(in.Text()) == "" {
			continue
		}
		l := line{Result: &Result{}}
		switch err := json.Unmarshal(in.Bytes(), &l); {
		case err != nil:
			return nil, fmt.Errorf("%w: line %d: %w", ErrFormat, n, err)
		case l.Machine != nil:
			runs = append(runs, MachineRun{Machine: *l.Machine})
		case len(runs) == 0 || l.Result == nil || l.Case == "" || l.Subject == "":
			return nil, fmt.Errorf("%w: line %d has neither a machine nor a case and a subject", ErrFormat, n)
		default:
			last := &runs[len(runs)-1]
			last.Results = append(last.Results, *l.Result)
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(runs) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrFormat)
	}
	return runs, nil
}
