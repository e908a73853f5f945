// Command lucid-bench measures lucid beside its peers. See package bench and docs/bench.
//
//	lucid-bench [flags] [CASE ...]   measure (no case: all)
//	lucid-bench list                 the cases
//	lucid-bench report FILE ...      one HTML page
//	lucid-bench compare A B          what is really different
//	lucid-bench check                hold the exact figures to bench/limits.txt, as CI does
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/bench"
	"github.com/lucid-containers/lucid/bench/report"
)

var commit = "unknown" // set by the Makefile

func main() {
	if len(os.Args) > 2 && os.Args[1] == "worker" {
		exit(bench.Worker(os.Args[2:], os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	exit(err)
}

func exit(err error) {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "lucid-bench: interrupted; nothing is left running")
	default:
		fmt.Fprintln(os.Stderr, "lucid-bench:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "list":
			for _, c := range bench.Cases() {
				fmt.Printf("%-9s %s\n", c.Name, c.What)
			}
			return nil
		case "report":
			return makeReport(args[1:])
		case "check":
			return check(ctx, args[1:])
		case "compare":
			return compare(args[1:])
		}
	}
	return measure(ctx, args)
}

// exactCases are those whose figures do not depend on the host.
var exactCases = []string{"boot", "sizes"}

func check(ctx context.Context, args []string) error {
	c := bench.Config{CountOnly: true}
	if len(args) != 0 {
		return fmt.Errorf("check: it takes no arguments, got %q", args)
	}
	if err := find(&c); err != nil {
		return err
	}
	limits, err := bench.Limits("instructions", "bytes") // exits need a KVM: e2e TestExitsHeld, in the lab
	if err != nil {
		return err
	}
	w, err := bench.NewWorld(c)
	if err != nil {
		return err
	}
	defer w.Close()
	var results []bench.Result
	err = bench.Run(ctx, w, exactCases, func(of []bench.Result) error {
		results = append(results, of...)
		return nil
	})
	if err != nil {
		return err
	}
	if err := bench.Table(os.Stdout, results); err != nil {
		return err
	}
	complaints, news := bench.Check(results, limits)
	for _, line := range news {
		fmt.Println("better:", line)
	}
	if len(complaints) > 0 {
		return errors.New(strings.Join(complaints, "\nlucid-bench: "))
	}
	return nil
}

func measure(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lucid-bench", flag.ContinueOnError)
	var c bench.Config
	flags.IntVar(&c.Runs, "n", 0, "measure each so often (default: what the case thinks right)")
	flags.StringVar(&c.Lucid, "lucid", "", "lucid `PROGRAM` (default: beside this one)")
	flags.StringVar(&c.Kernel, "kernel", "", "guest kernel `FILE` (default: guest/out/vmlinux beside bin/)")
	flags.StringVar(&c.Initramfs, "initramfs", "", "initramfs `FILE` with the agent (default: beside the kernel)")
	flags.StringVar(&c.RootfsTar, "rootfs", "", "`TAR` of a Debian (default: the cached one; debootstrap makes it)")
	flags.DurationVar(&c.Limit, "limit", 0, "begin no round of a case that has used its share of this `TIME`, and end at it (default: none)")
	flags.DurationVar(&c.FileBudget, "budget", 0, "end each test of the case 9p after this `TIME` (default 2s; LAB_ICOUNT=1 wants less)")
	out := flags.String("out", "", "append the results to this `FILE`, as JSON lines")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: lucid-bench [flags] [CASE ...] | list | report -out FILE.html FILE.jsonl ... | compare A.jsonl B.jsonl | check\n\nflags:")
		flags.PrintDefaults()
	}
	var cases []string
	for { // flags may come behind cases
		if err := flags.Parse(args); err != nil {
			return err
		}
		if flags.NArg() == 0 {
			break
		}
		cases, args = append(cases, flags.Arg(0)), flags.Args()[1:]
	}
	if err := bench.CheckCases(cases); err != nil {
		return err
	}
	if err := find(&c); err != nil {
		return err
	}
	c.Progress = os.Stderr
	m := bench.ThisMachine(commit)
	c.Slow = m.KVM && m.Soft
	w, err := bench.NewWorld(c)
	if err != nil {
		return err
	}
	defer w.Close()
	var file io.Writer = io.Discard
	if *out != "" {
		f, err := os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		file = f
	}
	if err := bench.Write(file, bench.MachineRun{Machine: m}); err != nil {
		return err
	}
	var all []bench.Result
	err = bench.Run(ctx, w, cases, func(results []bench.Result) error {
		all = append(all, results...)
		return bench.WriteResults(file, results)
	})
	if ctx.Err() != nil { // what it broke off is no news
		err = ctx.Err()
	}
	fmt.Println(m)
	return errors.Join(err, bench.Table(os.Stdout, all))
}

// find fills in paths from where this program lies.
func find(c *bench.Config) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Dir(self)
	if c.Lucid == "" {
		c.Lucid = filepath.Join(dir, "lucid")
	}
	if c.Kernel == "" {
		c.Kernel = filepath.Join(dir, "..", "guest", "out", "vmlinux")
	}
	c.Map = filepath.Join(filepath.Dir(c.Kernel), "System.map")
	if c.Initramfs == "" {
		c.Initramfs = filepath.Join(filepath.Dir(c.Kernel), "initramfs.cpio")
	}
	for _, path := range []string{c.Lucid, c.Kernel, c.Initramfs} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w (build it: make all)", err)
		}
	}
	if commit == "unknown" {
		if out, err := exec.Command("git", "-C", dir, "describe", "--always", "--dirty").Output(); err == nil {
			commit = strings.TrimSpace(string(out))
		}
	}
	return nil
}

func readFile(path string) (bench.Runs, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	runs, err := bench.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return runs, nil
}

func makeReport(args []string) error {
	flags := flag.NewFlagSet("lucid-bench report", flag.ContinueOnError)
	out := flags.String("out", "", "write the page to this `FILE` (default: standard output)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var runs bench.Runs
	for _, path := range flags.Args() {
		more, err := readFile(path)
		if err != nil {
			return err
		}
		runs = append(runs, more...)
	}
	if len(runs) == 0 {
		return errors.New("report: which files of results?")
	}
	if *out == "" {
		return report.Write(os.Stdout, runs)
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	return errors.Join(report.Write(f, runs), f.Close())
}

func compare(args []string) error {
	if len(args) != 2 {
		return errors.New("compare: want two files of results")
	}
	var sides [2][]bench.Result
	for i, path := range args {
		runs, err := readFile(path)
		if err != nil {
			return err
		}
		for _, r := range runs {
			sides[i] = append(sides[i], r.Results...)
		}
	}
	list := bench.Compare(sides[0], sides[1])
	if len(list) == 0 {
		return errors.New("compare: the two have no metric in common")
	}
	var w io.Writer = os.Stdout
	return bench.WriteDifferences(w, list)
}
