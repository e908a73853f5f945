package main

import (
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A file opened over 9p costs L1 four or five round trips, about a
// millisecond each, and a program from /usr/bin opens six files. So the
// programs that test scripts run all the time go into an image of their own.

// baseTools are looked for in baseDirs; those that this machine lacks are
// left out.
var baseTools = strings.Fields(`
	bash sh dash env true false cat ls echo printf sleep timeout date stat head tail wc grep sed awk mawk gawk sort uniq
	cut tr tee touch mkdir rmdir rm cp mv ln chmod chown mknod mkfifo dd df du sync mount umount findmnt mountpoint losetup
	ip tc bridge ss ping iptables nft ethtool ps kill pgrep pkill free uname id whoami hostname mktemp seq od xxd hexdump cmp diff
	find xargs tar gzip xz zstd sha256sum md5sum base64 readlink realpath basename dirname test [ expr nproc lsmod modprobe kmod
	insmod rmmod sysctl setsid nsenter unshare chroot strace time uptime dmesg taskset nice flock script stty tty
	getent setpriv capsh socat nc python3 perl git jq`)

var baseDirs = []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"}

// baseFiles are read by nearly every program or shell.
var baseFiles = []string{
	"/bin", "/sbin", "/lib", "/lib64",
	"/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/etc/hosts", "/etc/os-release",
	"/etc/profile", "/etc/bash.bashrc", "/usr/lib/locale/C.utf8", "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
}

// baseSet collects the base image.
func baseSet() (*imageSet, error) {
	s := newImageSet()
	for _, f := range baseFiles {
		fi, err := os.Lstat(f)
		if err != nil {
			continue
		}
		if fi.IsDir() && filepath.Dir(f) == "/" {
			continue // not a merged-/usr system: /bin is a directory
		}
		if err := s.add(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, name := range baseTools {
		for _, dir := range baseDirs {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if err := s.addProgram(path); err != nil {
				return nil, err
			}
			break
		}
	}
	return s, nil
}

// libDirs is where the dynamic loader of a Debian amd64 system looks.
var libDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib",
}

// addProgram adds a file and, if it is an ELF program or library, its
// interpreter and the libraries it is linked against.
func (s *imageSet) addProgram(path string) error {
	if err := s.add(path); err != nil {
		return err
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil // a script, or no program at all
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return err
		}
		if err := s.add(strings.TrimRight(string(b), "\x00")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return nil // static
	}
	for _, lib := range libs {
		for _, dir := range libDirs {
			p := filepath.Join(dir, lib)
			real, err := filepath.EvalSymlinks(filepath.Dir(p))
			if err != nil || s.paths[filepath.Join(real, lib)] != nil {
				continue
			}
			if _, err := os.Stat(p); err != nil {
				continue
			}
			if err := s.addProgram(p); err != nil {
				return err
			}
			break
		}
	}
	return nil
}
