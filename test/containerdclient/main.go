// Containerdclient runs containerd's own integration tests of its client against lucid's shim, and against runc's for
// comparison: `make containerd-client`.
//
//	containerdclient [-run REGEX] [-runtime lucid,runc]
//
// The tests are built from containerd's module at a pinned version (Makefile), so nothing of them lies here, and run in the lab. They pull images: a registry inside this program serves what it makes of Debian's busybox. What each test is
// expected to do stands in docs/containerd-client.md, with the reason where it does not pass; the command fails when a result
// is another one.
//
// They share a daemon, and one that hangs would hold up the others: then the lab is ended and another goes on with the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/expected"
	"github.com/lucid-containers/lucid/test/stage"
)

const (
	page = "docs/containerd-client.md"
	// maxLabs bounds how often the rest is tried after a hang.
	maxLabs = 20
	// patience is how long a test may say nothing. With LAB_ICOUNT=1 in the environment, where the tests' own deadlines do not depend
	// on the load of this machine, a container takes a minute.
	patience = 5 * time.Minute
)

// tools are what the tests run besides: with LAB_ICOUNT=1 the lab has nothing else of this machine.
const tools = "/usr/sbin/runc /usr/bin/lsof /usr/bin/ps /usr/bin/grep /usr/bin/which /usr/bin/dash"

// runtimes are TEST_RUNTIME of each.
var runtimes = map[string]string{"lucid": "io.containerd.lucid.v2", "runc": "io.containerd.runc.v2"}

func main() {
	only := flag.String("run", "", "regular expression of the tests to run (default: those of the page)")
	names := flag.String("runtime", "lucid", "what to run them with, comma separated: lucid, runc")
	inside := flag.Bool("inside", false, "run them here, with the arguments that follow (what the command does in the lab)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	var err error
	if *inside {
		err = runHere(ctx, flag.Args())
	} else {
		err = run(ctx, *only, strings.Split(*names, ","))
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "containerdclient:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, names []string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	table, err := expectations(string(text))
	if err != nil {
		return err
	}
	if only == "" {
		only = "^(" + strings.Join(slices.Sorted(maps.Keys(table)), "|") + ")$"
	}
	copies, err := stage.Checkout("lucid-client-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copies)
	if err := stageSelf(filepath.Join(copies, "bin")); err != nil {
		return err
	}
	var wrong []string
	for _, name := range names {
		runtime, ok := runtimes[name]
		if !ok {
			return fmt.Errorf("runtime %q is neither lucid nor runc", name)
		}
		got, err := runLabs(ctx, copies, only, runtime)
		if err != nil {
			return err
		}
		wrong = append(wrong, report(name, got, table)...)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d results are not what is expected:\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
	return nil
}

// report prints the results of a runtime and returns those that the page has not.
func report(name string, got map[string]string, table map[string]expected.Row) (wrong []string) {
	count := map[string]int{}
	for _, t := range slices.Sorted(maps.Keys(got)) {
		count[got[t]]++
		want := table[t].Of(name)
		fmt.Printf("%-55s %-6s %s\n", t, name, got[t])
		if got[t] != want {
			wrong = append(wrong, fmt.Sprintf("%s with %s: %s, and %s says %q", t, name, got[t], page, want))
		}
	}
	fmt.Printf("%s: %d pass, %d fail, %d skipped\n", name, count[pass], count[fail], count[skipped])
	return wrong
}

// runLabs runs the tests, in another lab those that a hang has kept from running.
func runLabs(ctx context.Context, copies, only, runtime string) (map[string]string, error) {
	got := map[string]string{}
	for range maxLabs {
		done := make([]string, 0, len(got))
		for t := range got {
			done = append(done, t)
		}
		skip := "^(" + strings.Join(done, "|") + ")$"
		p := &progress{got: got}
		complete, err := runLab(ctx, copies, p, runtime, "-test.run", only, "-test.skip", skip)
		if err != nil || complete {
			return got, err
		}
		if p.current == "" {
			continue // their daemon did not come up within the 4 s that they give it
		}
		fmt.Println("containerdclient: given up:", p.current)
		got[p.current] = fail
	}
	return nil, fmt.Errorf("%d labs, and still there are tests that have not run", maxLabs)
}

// runLab is one lab. It says whether the tests came to their end.
func runLab(ctx context.Context, copies string, p *progress, runtime string, args ...string) (complete bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(patience, cancel)
	defer watchdog.Stop()
	p.spoke = func() { watchdog.Reset(patience) }
	line := append([]string{"--", filepath.Join(copies, "bin", "containerdclient"), "-inside", runtime}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(copies, "bin", "lab"), line...)
	cmd.Env = append(os.Environ(), "LAB_TIMEOUT=60m", "LAB_MEMFILES="+copies+" "+tools)
	cmd.Stdout, cmd.Stderr = p, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return false, err
	}
	return p.over, nil
}

// stageSelf puts this program, and the busybox that the images are made of, into dir.
func stageSelf(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: apt-get install busybox-static", err)
	}
	for name, from := range map[string]string{"containerdclient": self, "busybox": busybox} {
		if err := stage.Program(from, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
