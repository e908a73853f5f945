// Package assets finds the guest's parts, the kernel and the initramfs, and
// the other programs of lucid: they lie where the calling program lies.
//
// It keeps no state and is safe for concurrent use. The smallest use:
//
//	kernel, err := assets.Find(assets.Kernel, "", plan.VM.Kernel)
package assets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Part is one part of the guest.
type Part struct {
	kind string // as in lucid's flags
	name string // of the file
}

// The parts.
var (
	Kernel    = Part{"kernel", "vmlinux"}
	Initramfs = Part{"initramfs", "initramfs.cpio"}
)

// dirs is where the guest's parts lie, relative to the program's directory: in
// a checkout (bin/../guest/out), then where `make install` puts them
// (bin/../share/lucid).
var dirs = []string{"../guest/out", "../share/lucid"}

// Find returns the absolute path of a part: what the user named by lucid's
// flag, or else what config.json names, or else lucid's own.
func Find(p Part, flag, config string) (string, error) {
	if flag != "" {
		path, err := filepath.Abs(flag)
		if err != nil {
			return "", err
		}
		return readable("--"+p.kind, path)
	}
	if config != "" {
		return readable("config.json: vm.kernel", config)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	return installed(p, exe)
}

// installed looks for a part of the guest near the program exe.
func installed(p Part, exe string) (string, error) {
	var tried []string
	for _, dir := range dirs {
		path := filepath.Join(filepath.Dir(exe), dir, p.name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		tried = append(tried, path)
	}
	return "", fmt.Errorf("no guest %s: looked for %s (build it with `make`, or name one with --%s)",
		p.kind, strings.Join(tried, " and "), p.kind)
}

// readable finds early what would otherwise fail late. It looks before it opens:
// an open of a FIFO waits for a writer.
func readable(what, path string) (string, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: %w", what, &os.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")})
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return path, f.Close()
}

// Program returns the path of another program of lucid's, which is installed
// in the same directory as this one.
func Program(name string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(exe), name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("no program %s: install it beside %s", path, filepath.Base(exe))
	}
	return path, nil
}
