//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/rootfs"
)

// world is what all tests share: made once by TestMain, read-only afterwards.
var world struct {
	lucid string // path of bin/lucid
	bin   string // its directory
	lower string // the unpacked Debian, never written to
	state string // --root of every command
	dir   string // scratch
}

// limit is how long one container may take, generous because software KVM interprets guest kernels.
const limit = 20 * time.Minute

func TestMain(m *testing.M) {
	code, err := setup(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func setup(m *testing.M) (int, error) {
	bin, tar := os.Getenv("LUCID_BIN"), os.Getenv("LUCID_ROOTFS")
	if bin == "" || tar == "" {
		return 1, errors.New("run it by `make e2e` (LUCID_BIN and LUCID_ROOTFS are not set)")
	}
	dir, err := os.MkdirTemp("", "lucid-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	world.bin, world.lucid, world.dir = bin, filepath.Join(bin, "lucid"), dir
	world.lower, world.state = filepath.Join(dir, "debian"), filepath.Join(dir, "state")
	if shared := os.Getenv(sharedLower); shared != "" {
		world.lower = shared
	} else if err := unpack(tar); err != nil {
		return 1, err
	}
	// The overlays' upper directories must not lie on an overlay themselves.
	if err := os.Mkdir(filepath.Join(dir, "upper"), 0o755); err != nil {
		return 1, err
	}
	if err := unix.Mount("upper", filepath.Join(dir, "upper"), "tmpfs", 0, "mode=755"); err != nil {
		return 1, os.NewSyscallError("mount upper", err)
	}
	defer unix.Unmount(filepath.Join(dir, "upper"), unix.MNT_DETACH)
	return m.Run(), nil
}

// sharedLower is, in the environment of a test program that a test runs, the Debian that this has unpacked.
const sharedLower = "LUCID_E2E_LOWER"

func unpack(tar string) error {
	if err := os.Mkdir(world.lower, 0o755); err != nil {
		return err
	}
	start := time.Now()
	if err := rootfs.Unpack(context.Background(), tar, world.lower); err != nil {
		return err
	}
	fmt.Printf("e2e: Debian unpacked in %.0f s\n", time.Since(start).Seconds())
	return nil
}

var serial atomic.Int64

// bundle is one container's bundle: a root file system of its own (an overlay on the shared Debian) and a config.json.
type bundle struct {
	t    *testing.T
	id   string
	dir  string
	root string // what the container sees as /
	spec *specs.Spec
}

// newBundle makes a bundle whose process is args, with `lucid spec`'s defaults and no terminal.
func newBundle(t *testing.T, args ...string) *bundle {
	t.Helper()
	id := fmt.Sprintf("e2e-%d", serial.Add(1))
	b := &bundle{t: t, id: id, dir: filepath.Join(world.dir, id)}
	b.root = filepath.Join(b.dir, "rootfs")
	upper := filepath.Join(world.dir, "upper", id)
	for _, d := range []string{b.root, filepath.Join(upper, "up"), filepath.Join(upper, "work")} {
		must(t, os.MkdirAll(d, 0o755))
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/up,workdir=%s/work", world.lower, upper, upper)
	if err := unix.Mount("overlay", b.root, "overlay", 0, opts); err != nil {
		t.Fatalf("mount overlay (%s): %v", opts, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.root, 0); err != nil {
			t.Errorf("the root file system is still in use: %v", err)
			_ = unix.Unmount(b.root, unix.MNT_DETACH)
		}
		must(t, os.RemoveAll(upper))
	})
	var err error
	b.spec, err = rootfs.ReadConfig(t.Context(), world.lucid, b.dir)
	must(t, err)
	b.spec.Process.Terminal = false
	b.spec.Process.Args = args
	b.spec.Root.Readonly = false
	b.capabilities(dockerCaps...)
	return b
}

// dockerCaps are what docker gives a container: enough for dpkg and tar, which runc's default is not.
var dockerCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// capabilities sets what the process may do.
func (b *bundle) capabilities(caps ...string) {
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write puts config.json in place; tests change b.spec before it.
func (b *bundle) write() {
	b.t.Helper()
	must(b.t, rootfs.WriteConfig(b.dir, b.spec))
}

// result is what one command of lucid did.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// command is `lucid --root STATE ARGS...`, ended when the test has taken too long.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, world.lucid, append([]string{"--root", world.state}, args...)...)
}

// exitCode turns Run's error into a shell's exit code.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if s, ok := exit.Sys().(interface{ Signaled() bool }); ok && s.Signaled() {
			t.Errorf("killed: %v", exit)
		}
		return exit.ExitCode()
	default:
		t.Fatal(err)
		return -1
	}
}

// lucid runs a command to its end.
func lucid(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	return finish(t, command(t, args...), stdin)
}

// finish runs any command to its end.
func finish(t *testing.T, cmd *exec.Cmd, stdin io.Reader) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	start := time.Now()
	err := cmd.Run()
	return result{out.String(), errs.String(), exitCode(t, err), time.Since(start)}
}

// leave runs a command that leaves a container behind. That holds on to the standard files it was given, so they are
// /dev/null: lucid's pipes would not end before the container does.
func leave(t *testing.T, args ...string) {
	t.Helper()
	log := filepath.Join(world.dir, "leave.log")
	cmd := command(t, append([]string{"--log", log}, args...)...)
	if code := exitCode(t, cmd.Run()); code != 0 {
		text, _ := os.ReadFile(log)
		t.Fatalf("lucid %v: exit code %d\n%s", args, code, tail(string(text)))
	}
}

// run runs the bundle's container to its end.
func (b *bundle) run(stdin io.Reader) result {
	b.t.Helper()
	b.write()
	return lucid(b.t, stdin, "run", "--bundle", b.dir, b.id)
}

// shell runs a script in a Debian container and fails the test unless it exits with 0.
func shell(t *testing.T, script string) string {
	t.Helper()
	b := newBundle(t, "bash", "-ec", script)
	r := b.run(nil)
	r.wantCode(t, 0)
	return r.stdout
}

func (r result) wantCode(t *testing.T, code int) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d (after %v)\nstdout: %s\nstderr: %s", r.code, code, r.took.Round(time.Millisecond), tail(r.stdout), tail(r.stderr))
	}
}

func (r result) wantStdout(t *testing.T, want string) {
	t.Helper()
	if r.stdout != want {
		t.Errorf("stdout %q, want %q\nstderr: %s", tail(r.stdout), want, tail(r.stderr))
	}
}

// tail keeps failure messages readable.
func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "… " + s[len(s)-most:]
	}
	return s
}

// wantContains fails unless every part stands in s.
func wantContains(t *testing.T, s string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			t.Errorf("%q is missing in:\n%s", p, tail(s))
		}
	}
}
