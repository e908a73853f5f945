package bench

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The tree that tar unpacks and git looks at: directories of 20 files each, in the sizes of C sources: half of them below 5 KiB, 9 KiB on average.
const (
	sourceDirs   = 100
	sourcePerDir = 20
	repoDirs     = 25 // of these, in the repository: 500 files, some seconds of a lab
)

var sourceSizes = []int{300, 700, 1200, 2 << 10, 4 << 10, 5 << 10, 7 << 10, 11 << 10, 18 << 10, 42 << 10}

// Names beside what the tests make: below workDir for all, and in the directory of one run.
const (
	repoName    = "repository"
	archiveName = "source.tar"
)

// sourceTime is long before a run, so that git believes what its index says of a file.
var sourceTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// sourceFile is file n of directory d. No two are alike.
func sourceFile(d, n int) (name string, data []byte) {
	name = fmt.Sprintf("dir-%d/file-%d.c", d, n)
	return name, bytes.Repeat([]byte("/* "+name+" */\n"), sourceSizes[(d+n)%len(sourceSizes)]/len(name)+1)
}

// writeArchive makes the tar file.
func writeArchive(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	for d := range sourceDirs {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("dir-%d/", d), Mode: 0o755, ModTime: sourceTime}
		if err := w.WriteHeader(h); err != nil {
			return errors.Join(err, f.Close())
		}
		for n := range sourcePerDir {
			name, data := sourceFile(d, n)
			err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: sourceTime})
			if err == nil {
				_, err = w.Write(data)
			}
			if err != nil {
				return errors.Join(err, f.Close())
			}
		}
	}
	return errors.Join(w.Close(), f.Close())
}

// repository makes one below workDir of root, by root's own git, for all runs: `git status` changes nothing in it. Without a git in root
// there is none, and the worker says why.
func (w *World) repository(ctx context.Context, root string) error {
	dir := filepath.Join(root, workDir, repoName)
	if _, err := os.Stat(filepath.Join(root, "usr/bin/git")); err != nil {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	w.progress("a git repository of %d files", repoDirs*sourcePerDir)
	half := dir + ".half"
	for d := range repoDirs {
		for n := range sourcePerDir {
			name, data := sourceFile(d, n)
			path := filepath.Join(half, name)
			err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644), os.Chtimes(path, sourceTime, sourceTime))
			if err != nil {
				return err
			}
		}
	}
	// An inode's number and ctime are not the same in a guest and on the host. Git is told to go by size and time, as it is where several
	// systems share a tree.
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"config", "core.checkStat", "minimal"},
		{"config", "core.trustctime", "false"},
		{"-c", "core.compression=0", "add", "."},
		{"-c", "user.name=bench", "-c", "user.email=bench", "commit", "--quiet", "--message=all"},
	} {
		cmd := exec.CommandContext(ctx, "/usr/bin/git", args...)
		cmd.SysProcAttr, cmd.Dir = chroot(root), "/"+workDir+"/"+filepath.Base(half)
		if out, err := cmd.CombinedOutput(); err != nil {
			return failed(ctx, "git "+args[0], err, string(out))
		}
	}
	return os.Rename(half, dir)
}
