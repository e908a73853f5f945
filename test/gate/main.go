// Gate runs Go tests and fails on a skip that nobody expects: a test that silently does not run protects nothing.
//
//	gate unit   every package here, under the race detector
//	gate lab    the tests that need a /dev/kvm or Linux's 9P client, in the lab (docs/lab.md)
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/lucid-containers/lucid/"

// inLab are the packages with tests that need what only the lab has everywhere.
var inLab = []string{
	"./kvm", "./vmm/...", "./devices/virtio/vsock", "./internal/hostcheck", "./p9server",
}

// labTests is what is run of them there; the rest ran here.
const labTests = "KVM|TestGuest|LinuxClient|TestCheck|TestSpeed"

// expected maps "stage package test" to why its skip is no loss. A prefix of the test's name is enough.
var expected = map[string]string{
	"unit kvm TestKVM":                               "runs in the lab",
	"unit kvm TestRun":                               "runs in the lab",
	"unit vmm TestKVM":                               "runs in the lab",
	"unit vmm TestGuest":                             "runs in the lab",
	"unit vmm/assist TestKVM":                        "runs in the lab",
	"unit devices/virtio/vsock TestGuest":            "runs in the lab",
	"unit p9server TestLinuxClient":                  "runs in the lab, unless this kernel has 9p",
	"unit test/lab Test":                             "e2e boots the lab; docs/lab.md says how to run its own tests",
	"unit cmd/lucid Test":                            "hides in test/e2e where there is a /dev/kvm",
	"unit internal/hostcheck Test":                   "runs in the lab",
	"lab vmm/assist TestKVM":                         "hardware KVM lacks nothing; on software KVM it must run",
	"lab p9server TestLinuxClient/none/UnlinkedMmap": "Linux refuses shared writable mappings with cache=none",
	"lab p9server TestLinuxClient/none/SharedMmap":   "Linux refuses shared writable mappings with cache=none",
	"unit p9server/p9test TestDirectory":             "a part that the temporary directory's file system lacks runs in a guest",
	"unit p9server TestDirectory":                    "a part that the temporary directory's file system lacks runs in a guest",
	"unit agent/container TestInGuest/cgroup":        "runs in a guest",
}

// event is a line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
}

func main() {
	if len(os.Args) != 2 || os.Args[1] != "unit" && os.Args[1] != "lab" {
		fmt.Fprintln(os.Stderr, "usage: gate unit|lab")
		os.Exit(2)
	}
	if err := stage(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

func stage(name string) error {
	args := []string{"test", "-json", "-timeout", "20m"}
	if name == "lab" {
		lab, err := filepath.Abs("bin/lab")
		if err != nil {
			return err
		}
		// One lab at a time: two would share two cores. A test that hangs ends before CI's patience does.
		args = append(append(args, "-p", "1", "-exec", lab+" --", "-run", labTests), inLab...)
	} else {
		args = append(args, "-race", "./...")
	}
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	cgo := "CGO_ENABLED=0" // some test binaries are a guest's /init: static
	if name == "unit" {
		cgo = "CGO_ENABLED=1" // the race detector's runtime is C
	}
	cmd.Env = append(os.Environ(), cgo, "LAB_TIMEOUT=8m")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := report{stage: name, output: map[string][]string{}}
	if err := r.read(out); err != nil {
		return err
	}
	err = cmd.Wait()
	fmt.Printf("%s: %d passed, %d failed, %d skipped\n", name, r.passed, r.failed, r.skipped)
	switch {
	case err != nil:
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	case len(r.surprises) > 0:
		return fmt.Errorf("skips that nobody expects:\n%s", strings.Join(r.surprises, "\n"))
	case r.passed == 0:
		return fmt.Errorf("no test ran")
	}
	return nil
}

// report counts, and keeps a test's output until it is known whether anybody needs it.
type report struct {
	stage                   string
	passed, failed, skipped int
	surprises               []string
	output                  map[string][]string
}

func (r *report) read(out io.Reader) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Println(lines.Text()) // a build failure
			continue
		}
		r.add(e)
	}
	return lines.Err()
}

func (r *report) add(e event) {
	pkg := strings.TrimPrefix(e.Package, module)
	key := e.Package + " " + e.Test
	switch {
	case e.Action == "output" || e.Action == "build-output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case e.Action == "fail":
		fmt.Printf("FAIL %s %s\n%s", pkg, e.Test, strings.Join(r.output[key], ""))
		if e.Test != "" {
			r.failed++
		}
	case e.Test == "" && e.Action == "pass":
		fmt.Println("ok  ", pkg)
	case e.Action == "pass":
		r.passed++
	case e.Action == "skip" && e.Test != "":
		r.skipped++
		if !r.expects(pkg, e.Test) {
			r.surprises = append(r.surprises, pkg+" "+e.Test+":\n"+strings.Join(r.output[key], ""))
		}
	default:
		return
	}
	delete(r.output, key)
}

func (r *report) expects(pkg, test string) bool {
	for k := range expected {
		f := strings.Fields(k)
		if f[0] == r.stage && f[1] == pkg && strings.HasPrefix(test, f[2]) {
			return true
		}
	}
	return false
}
