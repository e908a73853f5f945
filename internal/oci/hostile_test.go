package oci_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci"
)

// A config.json that is no good is one line of error, soon, and costs little.
func TestHostileConfig(t *testing.T) {
	text := func(s string) func(string) error {
		return func(p string) error { return os.WriteFile(p, []byte(s), 0o644) }
	}
	for name, c := range map[string]struct {
		plant func(path string) error
		want  string
	}{
		"fifo":      {func(p string) error { return unix.Mkfifo(p, 0o644) }, "not a regular file"},
		"zero":      {func(p string) error { return os.Symlink("/dev/zero", p) }, "not a regular file"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o755) }, "not a regular file"},
		"huge":      {func(p string) error { return errors.Join(text("{}")(p), os.Truncate(p, 100<<20)) }, "larger than"},
		"deep":      {text(strings.Repeat(`{"linux":`, 800_000)), "max depth"},
		"NaN":       {text(`{"ociVersion":NaN}`), "invalid character"},
		"overflow":  {text(`{"ociVersion":"1.0.0","process":{"user":{"uid":1e99}}}`), "process.user.uid"},
		"twice":     {text(`{"ociVersion":"1.0.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["a"]},"process":null}`), "process: must be set"},
		"two":       {text(`{}{}`), "after top-level value"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := bundle(t, "")
			if err := c.plant(filepath.Join(dir, oci.ConfigFile)); err != nil {
				t.Fatal(err)
			}
			result := make(chan error, 1)
			go func() { _, err := oci.Load(dir); result <- err }()
			select {
			case err := <-result:
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q", err, c.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it hangs")
			}
		})
	}
}

// No annotation names a file of the host, and an unknown one of ours is an
// error: it may be from a later version that would obey it.
func TestHostileAnnotations(t *testing.T) {
	for key, value := range map[string]string{
		"lucid.kernel":          "/etc/shadow",
		"lucid.initramfs":       "/etc/shadow",
		"lucid.kernel_params":   "init=/bin/sh",
		"lucid.":                "",
		oci.AnnotationVCPUs:     "1 lucid.debug",
		oci.AnnotationMemory:    "99999999999999999999",
		oci.AnnotationTransport: "vsock lucid.count",
		oci.AnnotationCache:     "none,trans=fd",
	} {
		spec := oci.Example()
		spec.Annotations = map[string]string{key: value}
		spec.Root.Path = t.TempDir()
		if _, err := oci.Split(spec, "/"); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
}
