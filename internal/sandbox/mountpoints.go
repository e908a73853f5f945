package sandbox

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/lucid-containers/lucid/internal/oci"
)

// mountPoints makes what is missing of the mounts' destinations in a root
// file system that is read-only for the guest: docker's --init with
// --read-only needs /sbin/docker-init, for one. In others the agent makes
// them. The image may be hostile, so every step is resolved below its root.
//
// What cannot be made is left to the agent, whose mount then says why.
func mountPoints(plan *oci.Plan, log *slog.Logger) {
	if !plan.Host.Rootfs.ReadOnly {
		return
	}
	root, err := os.OpenRoot(plan.Host.Rootfs.Path)
	if err != nil {
		return // the file server is about to say so
	}
	defer root.Close()
	files := map[int]bool{}
	for _, b := range plan.Host.Binds {
		files[b.Mount] = b.File
	}
	var above []string // destinations of earlier mounts, which hide the root's
	for i, m := range plan.Guest.Mounts {
		at := filepath.Clean("/" + m.Destination)
		if !hidden(at, above) {
			if err := mountPoint(root, at, files[i]); err != nil {
				log.Debug("mount point", "path", at, "err", err)
			}
		}
		above = append(above, at)
	}
}

func hidden(path string, above []string) bool {
	for _, a := range above {
		if a == "/" || strings.HasPrefix(path, a+"/") {
			return true
		}
	}
	return false
}

// mountPoint makes one file or directory unless there is something.
func mountPoint(root *os.Root, path string, file bool) error {
	rel := strings.TrimPrefix(path, "/")
	if _, err := root.Stat(rel); err == nil || rel == "" {
		return err
	}
	const mode = 0o755
	if !file {
		return root.MkdirAll(rel, mode)
	}
	if err := root.MkdirAll(filepath.Dir(rel), mode); err != nil {
		return err
	}
	f, err := root.OpenFile(rel, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	return f.Close()
}
