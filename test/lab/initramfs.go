package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

// Modules that L1's init needs to reach its root, and those that are there
// for the command. Others come from modprobe in L1.
var (
	rootModules  = []string{"virtio_pci", "virtio_console", "overlay"}
	hostModules  = []string{"9pnet_virtio", "9p"}
	imageModules = []string{"nfit", "nd_pmem", "ext4", "crc32c_generic"}
	lateModules  = []string{"kvm-amd", "tun", "veth", "bridge", "loop", "vhost_vsock"}
)

// modulesFor resolves the two lists of a request and returns the files.
func modulesFor(o *options, k *kernel, images bool) (early, late []labproto.Module, files []initFile, err error) {
	tree, err := openModuleTree(k.Modules)
	if err != nil {
		return nil, nil, nil, err
	}
	names := append([]string(nil), rootModules...)
	if images {
		names = append(names, imageModules...)
	}
	if !o.ICount {
		names = append(names, hostModules...)
	}
	earlyPaths, err := tree.resolve(names)
	if err != nil {
		return nil, nil, nil, err
	}
	latePaths, err := tree.resolve(append(names, lateModules...))
	if err != nil {
		return nil, nil, nil, err
	}
	list := func(paths []string) (mods []labproto.Module, err error) {
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			m := labproto.Module{File: filepath.Base(p)}
			if m.File == "kvm-amd.ko" {
				m.Params = o.KVM
			}
			mods = append(mods, m)
			files = append(files, initFile{path.Join(labproto.ModuleDir, m.File), 0o644, b})
		}
		return mods, nil
	}
	if early, err = list(earlyPaths); err != nil {
		return nil, nil, nil, err
	}
	late, err = list(without(latePaths, earlyPaths))
	return early, late, files, err
}

type initFile struct {
	name string // absolute
	mode uint32
	data []byte
}

// makeInitramfs writes the archive to a memfd.
func makeInitramfs(req *labproto.Request, files []initFile) (*os.File, error) {
	self, err := staticSelf()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	files = append([]initFile{{"/init", 0o755, self}, {labproto.RequestPath, 0o600, b}}, files...)
	fd, err := unix.MemfdCreate("lab-initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	if _, err := f.Write(cpio(files)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// staticSelf reads this program, which is to be L1's init.
func staticSelf() ([]byte, error) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, errors.New("the lab program is linked dynamically and cannot be L1's init: build it with CGO_ENABLED=0")
		}
	}
	return b, nil
}

// cpio makes a "newc" archive (Documentation/driver-api/early-userspace/
// buffer-format.rst) of regular files and the directories above them.
func cpio(files []initFile) []byte {
	var out bytes.Buffer
	ino := 0
	entry := func(name string, mode uint32, data []byte) {
		ino++
		name = name[1:]
		fmt.Fprintf(&out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name + "\x00")
		pad(&out)
		out.Write(data)
		pad(&out)
	}
	seen := map[string]bool{"/": true}
	var dirs func(string)
	dirs = func(d string) {
		if !seen[d] {
			seen[d] = true
			dirs(path.Dir(d))
			entry(d, unix.S_IFDIR|0o755, nil)
		}
	}
	for _, d := range []string{"/dev", "/proc", "/sys"} {
		dirs(d)
	}
	for _, f := range files {
		dirs(path.Dir(f.name))
		entry(f.name, unix.S_IFREG|f.mode, f.data)
	}
	entry("/TRAILER!!!", 0, nil)
	return out.Bytes()
}

func pad(w interface {
	io.Writer
	Len() int
},
) {
	_, _ = w.Write(make([]byte, -w.Len()&3))
}
