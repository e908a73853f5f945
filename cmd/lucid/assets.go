package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lucid-containers/lucid/internal/oci"
)

// Names of the guest's parts.
const (
	kernelName    = "vmlinux"
	initramfsName = "initramfs.cpio"
)

// assetDirs is where the guest's parts lie, relative to the program's
// directory: in a checkout (bin/../guest/out), then where `make install` puts
// them (bin/../share/lucid).
var assetDirs = []string{"../guest/out", "../share/lucid"}

// asset is an absolute path to one part of the guest: what the user named, or
// else what config.json names, or else lucid's own.
func asset(kind, flag, config, name string) (string, error) {
	if flag != "" {
		path, err := filepath.Abs(flag)
		if err != nil {
			return "", err
		}
		return readable("--"+kind, path)
	}
	if config != "" {
		return readable(oci.ConfigFile+": vm.kernel", config)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	return installed(kind, name, exe)
}

// installed looks for a part of the guest near the program exe.
func installed(kind, name, exe string) (string, error) {
	var tried []string
	for _, dir := range assetDirs {
		path := filepath.Join(filepath.Dir(exe), dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		tried = append(tried, path)
	}
	return "", fmt.Errorf("no guest %s: looked for %s (build it with `make`, or name one with --%s)",
		kind, strings.Join(tried, " and "), kind)
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
