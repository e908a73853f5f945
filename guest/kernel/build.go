package kernel

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
	"syscall"

	"golang.org/x/sys/unix"
)

// Config says what to build. The zero value of a field means its default.
type Config struct {
	Source  string    // tarball, default /usr/src/linux-source-6.12.tar.xz
	Cache   string    // directory of finished kernels, default [CacheDir]
	Out     string    // directory that receives the results; required
	Options []Option  // default [Fragments]
	Skips   []Skip    // default [Skips]
	Edits   []Edit    // default [Edits]
	Jobs    int       // make -j, default 2
	Log     io.Writer // progress, default none
}

// results are the files of a cache entry and of the output directory, with
// their names in the build tree.
var results = map[string]string{"vmlinux": "vmlinux.stripped", "System.map": "System.map", ".config": ".config"}

// DefaultSource is where Debian's package linux-source-6.12 puts the tarball.
const DefaultSource = "/usr/src/linux-source-6.12.tar.xz"

// CacheDir is ${LUCID_CACHE} or lucid/ in the user's cache directory, plus kernel/.
func CacheDir() (string, error) {
	dir := os.Getenv("LUCID_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(user, "lucid")
	}
	return filepath.Join(dir, "kernel"), nil
}

// Build puts vmlinux, System.map and .config into c.Out and returns the cache
// entry they came from. It compiles only when no entry has the right key.
func Build(ctx context.Context, c Config) (entry string, err error) {
	if err := c.defaults(); err != nil {
		return "", err
	}
	if err := checkTools(c.Source); err != nil {
		return "", err
	}
	key, err := c.key(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(c.Cache, 0o755); err != nil {
		return "", err
	}
	entry = filepath.Join(c.Cache, key)
	if !complete(entry) {
		unlock, err := c.lock()
		if err != nil {
			return "", err
		}
		defer unlock()
	}
	if complete(entry) { // perhaps by the process we waited for
		fmt.Fprintf(c.Log, "kernel: cached %s\n", key)
	} else if err := c.compile(ctx, entry); err != nil {
		return "", err
	}
	return entry, install(entry, c.Out)
}

func (c *Config) defaults() error {
	if c.Out == "" {
		return errors.New("kernel: no output directory")
	}
	if c.Source == "" {
		c.Source = DefaultSource
	}
	if c.Jobs == 0 {
		c.Jobs = 2
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	var err error
	if c.Cache == "" {
		if c.Cache, err = CacheDir(); err != nil {
			return err
		}
	}
	if c.Options == nil {
		if c.Options, err = Fragments(); err != nil {
			return err
		}
	}
	if c.Skips == nil {
		if c.Skips, err = Skips(); err != nil {
			return err
		}
	}
	if c.Edits == nil {
		c.Edits, err = Edits()
	}
	return err
}

func (c *Config) key(ctx context.Context) (string, error) {
	source, err := hashFile(c.Source)
	if err != nil {
		return "", err
	}
	var tools strings.Builder
	for _, tool := range []string{"gcc", "ld"} {
		out, err := exec.CommandContext(ctx, tool, "--version").Output()
		if err != nil {
			return "", fmt.Errorf("kernel: %s --version: %w", tool, err)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		fmt.Fprintln(&tools, first)
	}
	return Inputs{Source: source, Options: c.Options, Skips: c.Skips, Edits: c.Edits, Toolchain: tools.String(), Recipe: recipe}.Key(), nil
}

// lock keeps other builds of this cache out until the returned function runs.
// The kernel drops the lock when the process dies.
func (c *Config) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		fmt.Fprintln(c.Log, "kernel: waiting for another build to end")
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { _ = f.Close() }, nil
}

func complete(entry string) bool {
	for name := range results {
		if _, err := os.Stat(filepath.Join(entry, name)); err != nil {
			return false
		}
	}
	return true
}

// compile makes the cache entry. All work happens in a temporary directory of
// the cache, so that an interrupted build leaves no entry behind.
func (c *Config) compile(ctx context.Context, entry string) error {
	work, err := os.MkdirTemp(c.Cache, "build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()

	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := c.unpack(ctx, tree); err != nil {
		return err
	}
	if err := applyEdits(tree, c.Edits); err != nil {
		return err
	}
	if err := c.link(ctx, tree); err != nil {
		return err
	}
	done := filepath.Join(work, "done")
	if err := os.Mkdir(done, 0o755); err != nil {
		return err
	}
	for name, built := range results {
		if err := os.Rename(filepath.Join(tree, built), filepath.Join(done, name)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(entry); err != nil { // an incomplete one
		return err
	}
	return os.Rename(done, entry)
}

// unpack puts the kernel's source into the directory tree.
func (c *Config) unpack(ctx context.Context, tree string) error {
	fmt.Fprintf(c.Log, "kernel: unpacking %s\n", c.Source)
	return run(ctx, tree, "tar", "-x", "-f", c.Source, "--strip-components=1",
		// Nothing of these is compiled for this configuration, and no Kconfig file is in them
		// (Documentation/Kconfig, which is read, is one level up).
		"--exclude=*/Documentation/*/*", "--exclude=*/tools/testing/*", "--exclude=*/arch/*/boot/dts/*", "--exclude=*/drivers/gpu/drm/amd/include/*")
}

// link makes the results in a tree whose source is edited.
func (c *Config) link(ctx context.Context, tree string) error {
	if err := c.configure(ctx, tree); err != nil {
		return err
	}
	p := startProgress(c.Log)
	err := runTo(ctx, tree, p, c.make("vmlinux")...)
	p.stop()
	if err != nil {
		return err
	}
	if err := skipFunctions(filepath.Join(tree, "vmlinux"), c.Skips); err != nil {
		return err
	}
	// The symbols serve nobody: System.map has them for whoever debugs.
	return run(ctx, tree, "strip", "--strip-all", "-o", "vmlinux.stripped", "vmlinux")
}

// configure starts from allnoconfig rather than tinyconfig: tinyconfig turns on
// the defaults of every option that becomes visible, so the fragments would
// not be the whole story.
func (c *Config) configure(ctx context.Context, tree string) error {
	all := filepath.Join(tree, "lucid.allconfig")
	if err := os.WriteFile(all, render(c.Options), 0o644); err != nil {
		return err
	}
	if err := run(ctx, tree, c.make("KCONFIG_ALLCONFIG="+all, "allnoconfig")...); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return err
	}
	if bad := Verify(config, c.Options); len(bad) > 0 {
		return fmt.Errorf("kernel: the fragments ask for what the kernel's configuration did not grant:\n  %s", strings.Join(bad, "\n  "))
	}
	return nil
}

// make is a command line that gives the same bytes at any time, in any
// directory, by any user.
func (c *Config) make(args ...string) []string {
	return append([]string{
		"nice", "-n", "5", "make", fmt.Sprintf("-j%d", c.Jobs), "ARCH=x86",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_USER=lucid",
		"KBUILD_BUILD_HOST=lucid", "KBUILD_BUILD_VERSION=1",
	}, args...)
}

func run(ctx context.Context, dir string, args ...string) error {
	return runTo(ctx, dir, io.Discard, args...)
}

// runTo runs a program, gives its standard output to out and puts the end of
// its error output into the error.
func runTo(ctx context.Context, dir string, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MAKEFLAGS=", "MFLAGS=")
	// make's own children must end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stderr.String())
		const most = 4000 // bytes: the last messages are the useful ones
		return fmt.Errorf("kernel: %s: %w\n%s", strings.Join(args, " "), err, text[max(0, len(text)-most):])
	}
	return nil
}

// install copies the results into out, each one atomically, so that a VM that
// starts meanwhile sees the old kernel or the new one.
func install(entry, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name := range results {
		data, err := os.ReadFile(filepath.Join(entry, name))
		if err != nil {
			return err
		}
		tmp := filepath.Join(out, "."+name+".tmp")
		if err := os.WriteFile(tmp, data, 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return nil
}
