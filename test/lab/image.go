package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An image is an ext4 file system with copies of host files at their host
// paths. L1 sees it as an NVDIMM and puts it over the 9p root. It is cached
// under a hash of what lstat says of every file in it, so a changed file makes
// a new image.

// imageSet collects the files of an image.
type imageSet struct {
	paths map[string]fs.FileInfo // real path (no symlink among its parents) → lstat
}

func newImageSet() *imageSet { return &imageSet{paths: make(map[string]fs.FileInfo)} }

// add takes path, the directories above it and, for a symlink, what it points
// to. Below a directory it takes everything, without following symlinks.
func (s *imageSet) add(path string) error {
	return s.addDepth(path, 0)
}

func (s *imageSet) addDepth(path string, depth int) error {
	if depth > 40 { // as the kernel's MAXSYMLINKS
		return fmt.Errorf("%s: %w", path, unix.ELOOP)
	}
	// /bin/sh on a merged-/usr system: the link /bin and the file /usr/bin/sh.
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if fi, err := os.Lstat(dir); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			if err := s.addDepth(dir, depth+1); err != nil {
				return err
			}
		}
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	real := filepath.Join(parent, filepath.Base(path))
	fi, err := os.Lstat(real)
	if err != nil {
		return err
	}
	if err := s.addParents(parent); err != nil {
		return err
	}
	seen := s.paths[real] != nil
	s.paths[real] = fi
	switch {
	case fi.IsDir() && depth == 0:
		return s.addTree(real)
	case fi.Mode()&fs.ModeSymlink != 0 && !seen:
		target, err := os.Readlink(real)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(parent, target)
		}
		if err := s.addDepth(target, depth+1); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *imageSet) addParents(dir string) error {
	for ; dir != "/" && s.paths[dir] == nil; dir = filepath.Dir(dir) {
		fi, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		s.paths[dir] = fi
	}
	return nil
}

func (s *imageSet) addTree(root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else's temporary file
		}
		if err == nil {
			s.paths[p] = fi
		}
		return err
	})
}

// sorted lists the paths, parents before children.
func (s *imageSet) sorted() []string {
	out := make([]string, 0, len(s.paths))
	for p := range s.paths {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}

// key identifies the content as far as lstat tells.
func (s *imageSet) key() string {
	h := sha256.New()
	fmt.Fprintln(h, "image", cacheVersion)
	for _, p := range s.sorted() {
		fi := s.paths[p]
		if fi.IsDir() {
			// A directory's time changes with every temporary file in it;
			// what it lists is in the other lines.
			fmt.Fprintf(h, "%q %v\n", p, fi.Mode())
			continue
		}
		fmt.Fprintf(h, "%q %v %d %d\n", p, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// imageGrain: Linux wants persistent memory in whole 128 MiB sections. The
// file is sparse.
const imageGrain = 128 << 20

// maxImages is how many images the cache keeps; the oldest used go first.
const maxImages = 8

// image returns the path and size of the image with the files of s.
func (s *imageSet) image(cache string) (path string, size int64, err error) {
	dir := filepath.Join(cache, "images")
	path = filepath.Join(dir, s.key()+".ext4")
	now := time.Now()
	if fi, err := os.Stat(path); err == nil {
		return path, fi.Size(), os.Chtimes(path, now, now) // used: see prune
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		if mkfs, err = exec.LookPath("/sbin/mkfs.ext4"); err != nil {
			return "", 0, missing("mkfs.ext4", "e2fsprogs")
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", 0, err
	}
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return "", 0, err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	used, err := s.stage(root)
	if err != nil {
		return "", 0, err
	}
	inodes := int64(len(s.paths)) + 64
	used += inodes*256 + used/16 + 16<<20
	size = (used + imageGrain - 1) / imageGrain * imageGrain
	file := filepath.Join(tmp, "image")
	cmd := exec.Command(mkfs, "-q", "-F", "-b", "4096", "-m", "0", "-N", fmt.Sprint(inodes),
		"-O", "^has_journal,^resize_inode,^metadata_csum,^64bit,^orphan_file", "-U", "6c756369-6400-4000-8000-000000000000",
		"-E", "hash_seed=6c756369-6400-4000-8000-000000000001,lazy_itable_init=0", "-d", root, file, fmt.Sprintf("%dk", size>>10))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", 0, fmt.Errorf("mkfs.ext4: %w: %s", err, lastLine(out))
	}
	if err := os.Rename(file, path); err != nil {
		return "", 0, err
	}
	prune(dir)
	return path, size, nil
}

// stage lays the files out under root for mkfs and returns their size on disk.
func (s *imageSet) stage(root string) (used int64, err error) {
	if err := os.Mkdir(root, 0o755); err != nil {
		return 0, err
	}
	dirs := map[string]fs.FileInfo{}
	for _, p := range s.sorted() {
		fi, to := s.paths[p], root+p
		used += (fi.Size() + 8191) &^ 4095
		switch {
		case fi.IsDir():
			if err := os.Mkdir(to, 0o700); err != nil {
				return 0, err
			}
			dirs[to] = fi
		case fi.Mode().IsRegular():
			if err := linkOrCopy(to, p, fi); err != nil {
				return 0, err
			}
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err == nil {
				err = os.Symlink(target, to)
			}
			if err != nil {
				return 0, err
			}
		}
		// Sockets, pipes and devices stay out: they mean nothing in L1.
	}
	for to, fi := range dirs {
		if err := copyMode(to, fi); err != nil {
			return 0, err
		}
	}
	return used, nil
}

func linkOrCopy(to, from string, fi fs.FileInfo) error {
	if os.Link(from, to) == nil {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close(), copyMode(to, fi)); err != nil {
		return err
	}
	return os.Chtimes(to, fi.ModTime(), fi.ModTime())
}

// copyMode gives a copy the owner (if we may) and the mode of the original.
func copyMode(to string, fi fs.FileInfo) error {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		_ = os.Lchown(to, int(st.Uid), int(st.Gid))
	}
	return os.Chmod(to, fi.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}

// prune removes the least recently used images. One that a running QEMU has
// mapped lives on until that ends.
func prune(dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, "*.ext4"))
	age := func(p string) time.Time {
		fi, err := os.Stat(p)
		if err != nil {
			return time.Time{}
		}
		return fi.ModTime()
	}
	sort.Slice(found, func(i, j int) bool { return age(found[i]).After(age(found[j])) })
	for i, p := range found {
		if i >= maxImages {
			_ = os.Remove(p)
		}
	}
	// What a killed lab left behind.
	stale, _ := filepath.Glob(filepath.Join(dir, ".new-*"))
	for _, p := range stale {
		if time.Since(age(p)) > 24*time.Hour && strings.HasPrefix(filepath.Base(p), ".new-") {
			_ = os.RemoveAll(p)
		}
	}
}
