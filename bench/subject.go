package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// containerLimit is how long one container may take, generous because a software KVM interprets guest kernels.
const containerLimit = 5 * time.Minute

// errSlow is wrapped by the error of a container that the limit has ended. It is the host's fault, not the benchmark's.
var errSlow = fmt.Errorf("on this host a container does not end in %v", containerLimit)

// slow makes err an errSlow if it comes from ctx, which has the limit.
func slow(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSlow) {
		return errSlow
	}
	return err
}

// failed is the error of a command: what it was, why, and the last line that it wrote.
func failed(ctx context.Context, what string, err error, text string) error {
	if s := slow(ctx, err); errors.Is(s, errSlow) {
		return fmt.Errorf("%s: %w", what, s)
	}
	return fmt.Errorf("%s: %w: %s", what, err, lastLine(text))
}

// withLimit is for one container.
func withLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, containerLimit, errSlow)
}

// subject runs containers.
type subject interface {
	name() string
	ours() bool
	// ready says why it cannot be used here; the reason wraps errSkip.
	ready() error
	// run is a container's whole life. The process's stdin is in; what it writes goes to out.
	run(ctx context.Context, w *World, b *bundle, in io.Reader, out io.Writer) error
}

// keeper is a subject whose containers stay, to be measured while they run.
type keeper interface {
	subject
	// start returns when the container's process runs. stop ends it and leaves nothing.
	start(ctx context.Context, w *World, b *bundle) (stop func(), err error)
	// pids are the host processes that exist for the container alone.
	pids(w *World, b *bundle) ([]int, error)
	// exec runs one more process in it.
	exec(ctx context.Context, w *World, b *bundle, out io.Writer, args ...string) error
}

// ociSubject is a command line that runc's callers know.
type ociSubject struct {
	label string
	path  func(w *World) (string, error)
	flags []string
	vm    bool
	// template has it start from a saved VM, which its first run makes.
	template bool
}

func lucidSubject(label string, flags ...string) *ociSubject {
	return &ociSubject{label: label, flags: flags, vm: true, path: func(w *World) (string, error) { return w.Lucid, nil }}
}

func templateSubject() *ociSubject {
	s := lucidSubject("lucid, from a template")
	s.template = true
	return s
}

func peerSubject(name string, flags ...string) *ociSubject {
	return &ociSubject{label: name, flags: flags, path: func(*World) (string, error) { return needProgram(name) }}
}

// runsc is gVisor's command.
const runsc = "runsc"

func runscSubject() *ociSubject { return peerSubject(runsc, "--network=none") }

func (s *ociSubject) name() string { return s.label }

func (s *ociSubject) ours() bool { return s.vm }

func (s *ociSubject) ready() error {
	if s.vm {
		return needKVM()
	}
	if os.Geteuid() != 0 {
		return skip("%s needs root", s.label)
	}
	_, err := s.path(nil)
	return err
}

// command is the program with its state in our scratch directory. It dies with us, and its whole process group with ctx.
func (s *ociSubject) command(ctx context.Context, w *World, args ...string) (*exec.Cmd, error) {
	path, err := s.path(w)
	if err != nil {
		return nil, err
	}
	words := []string{"--root", filepath.Join(w.dir, "state-"+s.label)}
	if s.template {
		words = append(words, "--template", "auto", "--template-dir", filepath.Join(w.dir, "templates"))
	}
	cmd := exec.CommandContext(ctx, path, slices.Concat(words, s.flags, args)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for us: the containers are ended in order
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

func (s *ociSubject) run(ctx context.Context, w *World, b *bundle, in io.Reader, out io.Writer) error {
	ctx, cancel := withLimit(ctx)
	defer cancel()
	cmd, err := s.command(ctx, w, "run", "--bundle", b.dir, b.id)
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &errs
	if err := cmd.Run(); err != nil {
		s.remove(w, b)
		return failed(ctx, s.label+" run", err, errs.String())
	}
	return nil
}

// remove is for what an error has left behind, and must work when the run's context has ended.
func (s *ociSubject) remove(w *World, b *bundle) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if cmd, err := s.command(ctx, w, "delete", "--force", b.id); err == nil {
		_ = cmd.Run() // there may be nothing
	}
}

func (s *ociSubject) start(ctx context.Context, w *World, b *bundle) (func(), error) {
	ctx, cancel := withLimit(ctx)
	defer cancel()
	log := filepath.Join(b.dir, "log")
	cmd, err := s.command(ctx, w, "--log", log, "run", "--detach", "--bundle", b.dir, b.id)
	if err != nil {
		return nil, err
	}
	// Its files are /dev/null: a pipe would not end before the container does.
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log)
		s.remove(w, b)
		return nil, failed(ctx, s.label+" run", err, string(text))
	}
	return func() { s.remove(w, b) }, nil
}

func (s *ociSubject) exec(ctx context.Context, w *World, b *bundle, out io.Writer, args ...string) error {
	ctx, cancel := withLimit(ctx)
	defer cancel()
	cmd, err := s.command(ctx, w, append([]string{"exec", b.id}, args...)...)
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &errs
	if err := cmd.Run(); err != nil {
		return failed(ctx, s.label+" exec", err, errs.String())
	}
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// since is in milliseconds.
func since(begin, end time.Time) float64 { return float64(end.Sub(begin).Microseconds()) / 1000 }

// inRound is the list in the order of round i. Another one begins each time: who is first pays for how the host's memory was left.
func inRound[S any](i int, list []S) []S {
	if len(list) == 0 {
		return nil
	}
	k := i % len(list)
	return slices.Concat(list[k:], list[:k])
}
