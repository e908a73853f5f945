package sandbox

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/oci"
)

func TestMountPoints(t *testing.T) {
	outside := t.TempDir()
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "usr/sbin"), 0o755),
		os.Symlink("usr/sbin", filepath.Join(root, "sbin")),
		os.Symlink(outside, filepath.Join(root, "abs")),
		os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "rel")),
		os.Symlink(filepath.Join(outside, "file"), filepath.Join(root, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	plan := &oci.Plan{}
	plan.Host.Rootfs = oci.Export{Path: root, ReadOnly: true}
	for i, m := range []struct {
		at   string
		file bool
	}{
		{"/dev", false},
		{"/dev/pts", false},
		{"/sbin/docker-init", true},
		{"/data/deep/down", false},
		{"relative", false},
		{"/abs/evil", false},
		{"/rel/evil", true},
		{"/link", true},
		{"/../../up", false},
	} {
		plan.Guest.Mounts = append(plan.Guest.Mounts, specs.Mount{Destination: m.at})
		if m.file {
			plan.Host.Binds = append(plan.Host.Binds, oci.Bind{Mount: i, File: true})
		}
	}
	plan.Host.Rootfs.ReadOnly = false
	mountPoints(plan, slog.New(slog.DiscardHandler))
	if _, err := os.Stat(filepath.Join(root, "dev")); err == nil {
		t.Error("made in a root file system that the agent can write to")
	}
	plan.Host.Rootfs.ReadOnly = true
	for range 2 {
		mountPoints(plan, slog.New(slog.DiscardHandler))
	}
	for at, dir := range map[string]bool{"dev": true, "usr/sbin/docker-init": false, "data/deep/down": true, "relative": true, "up": true} {
		if info, err := os.Stat(filepath.Join(root, at)); err != nil || info.IsDir() != dir {
			t.Errorf("%s: %v", at, err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "dev/pts")); err == nil {
		t.Error("/dev/pts was made, although a mount hides it")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside of the root: %v, %v", left, err)
	}
}
