// Validation runs the validation programs of opencontainers/runtime-tools against lucid, and against the host's runc for
// comparison: `make validation`. Each program makes containers with the runtime that the environment names and prints TAP.
//
//	validation [-run REGEX] [-runtime lucid,runc]
//
// The programs are built from the module at a pinned version (go install), so nothing of them lies here, and run in the lab:
// they leave cgroups and mounts behind when they fail. What each is expected to do stands in docs/conformance.md, with the
// reason where it does not pass; the command fails when a result of lucid is another one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/stage"
)

// The module has no tagged version with a go.mod; this is a commit of 2022, the newest that speaks of runtime-spec 1.0.2 and
// later. Its programs are at validation/NAME, beside the program that looks around inside the container.
const (
	tools   = "github.com/opencontainers/runtime-tools"
	version = "v0.9.1-0.20221107090550-2e043c6bd626"
	inside  = "runtimetest"
	rootfs  = "rootfs-amd64.tar.gz"
)

const page = "docs/conformance.md"

// runc is what is compared with.
const runc = "/usr/sbin/runc"

func main() {
	only := flag.String("run", ".", "regular expression of the programs to run")
	runtimes := flag.String("runtime", "lucid", "what to run them with, comma separated: lucid, runc")
	dir := flag.String("inside", "", "directory of the programs: run them here (what the command does in the lab)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, *only, strings.Split(*runtimes, ","), *dir)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "validation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, runtimes []string, dir string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if dir != "" {
		return runHere(ctx, dir, match, runtimes)
	}
	copies, err := stage.Checkout("lucid-validation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copies)
	programs := filepath.Join(copies, "programs")
	if err := build(ctx, programs, match); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	copied := filepath.Join(copies, "bin", "validation")
	if err := stage.Program(self, copied); err != nil {
		return err
	}
	lab := exec.CommandContext(ctx, filepath.Join(copies, "bin", "lab"), "--",
		copied, "-inside", programs, "-run", only, "-runtime", strings.Join(runtimes, ","))
	lab.Env = append(os.Environ(), "LAB_TIMEOUT=45m", "LAB_MEMFILES="+copies)
	lab.Stdout, lab.Stderr = os.Stdout, os.Stderr
	lab.Cancel = func() error { return lab.Process.Signal(unix.SIGTERM) }
	return lab.Run()
}

// build puts the programs into dir, with what they want beside them.
func build(ctx context.Context, dir string, match *regexp.Regexp) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", tools+"@"+version)
	download.Stderr = os.Stderr
	out, err := download.Output()
	if err != nil {
		return fmt.Errorf("go mod download %s: %w", tools, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(module.Dir, "validation"))
	if err != nil {
		return err
	}
	args := []string{"install", "-trimpath", "-ldflags=-s -w", tools + "/cmd/" + inside + "@" + version}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "util" && match.MatchString(e.Name()) {
			args = append(args, tools+"/validation/"+e.Name()+"@"+version)
		}
	}
	if len(args) == 4 {
		return errors.New("no such program")
	}
	install := exec.CommandContext(ctx, "go", args...)
	// Static: they run in containers and in the lab.
	install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	install.Stdout, install.Stderr = os.Stdout, os.Stderr
	if err := install.Run(); err != nil {
		return fmt.Errorf("go install %s: %w", tools, err)
	}
	return stage.Program(filepath.Join(module.Dir, rootfs), filepath.Join(dir, rootfs))
}
