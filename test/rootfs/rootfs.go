// Package rootfs makes Debian root file systems for the demo and the end-to-end tests. Each is built once by
// debootstrap, kept as a tar file in a cache outside the tree and named by the hash of what went into it.
package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is what a root file system holds.
type Spec struct {
	Suite    string   // Debian release, "bookworm"
	Packages []string // beside debootstrap's minbase
}

var (
	// Minimal is debootstrap's smallest Debian.
	Minimal = Spec{Suite: "bookworm"}
	// Userland adds the programs that the end-to-end tests and the benchmark put to work.
	Userland = Spec{Suite: "bookworm", Packages: []string{"git", "perl", "procps", "python3-minimal", "sqlite3"}}
)

// Dir is the cache directory: $LUCID_CACHE, else the user's cache directory, joined with lucid/rootfs.
func Dir() (string, error) {
	if d := os.Getenv("LUCID_CACHE"); d != "" {
		return filepath.Join(d, "lucid", "rootfs"), nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory (set LUCID_CACHE): %w", err)
	}
	return filepath.Join(d, "lucid", "rootfs"), nil
}

// Tar returns the path of the tar file for s and builds it first when the cache has none. Progress goes to log.
// Two callers at once are safe: one builds, the other waits.
func Tar(ctx context.Context, s Spec, log io.Writer) (string, error) {
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte("1 " + s.Suite + " " + strings.Join(s.Packages, " ")))
	path := filepath.Join(dir, hex.EncodeToString(sum[:8])+".tar")
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", os.NewSyscallError("flock", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, build(ctx, s, path, log)
}

// build writes the tar beside path and renames it: a killed build leaves no half file that could be used.
func build(ctx context.Context, s Spec, path string, log io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("making a Debian root file system needs root (debootstrap)")
	}
	tree, err := os.MkdirTemp("", "lucid-rootfs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	args := []string{"--variant=minbase"}
	if len(s.Packages) > 0 {
		args = append(args, "--include="+strings.Join(s.Packages, ","))
	}
	fmt.Fprintf(log, "rootfs: debootstrap %s %s (once, about a minute)\n", s.Suite, strings.Join(s.Packages, " "))
	if err := run(ctx, log, "debootstrap", append(args, s.Suite, tree)...); err != nil {
		return err
	}
	// Package archives and lists are half the size and of no use in a container.
	for _, pat := range []string{"var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*"} {
		files, err := filepath.Glob(filepath.Join(tree, pat))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	tmp := path + ".tmp"
	if err := run(ctx, log, "tar", "--numeric-owner", "--xattrs", "-C", tree, "-cf", tmp, "."); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// run shows one line every few seconds while the command works, and its whole output when it fails.
func run(ctx context.Context, log io.Writer, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%s is missing: apt-get install %s", name, name)
	}
	var out strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", name, err, out.String())
			}
			return nil
		case <-tick.C:
			fmt.Fprintf(log, "rootfs: %s, %d s\n", name, int(time.Since(start).Seconds()))
		}
	}
}

// Unpack extracts the tar file into dir, which must exist.
func Unpack(ctx context.Context, tar, dir string) error {
	out, err := exec.CommandContext(ctx, "tar", "--numeric-owner", "--xattrs", "-C", dir, "-xf", tar).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", tar, err, out)
	}
	return nil
}
