package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// kernel is one unpacked kernel package in the cache.
type kernel struct {
	Dir     string // cache directory
	Vmlinux string // uncompressed, with its PVH note
	Release string // 6.1.0-56-amd64
	Modules string // …/lib/modules/RELEASE
}

// errMissing is a tool or package that has to be installed; its text says how.
var errMissing = errors.New("missing")

func missing(what, install string) error {
	return fmt.Errorf("%w: %s (apt-get install %s)", errMissing, what, install)
}

// findKernel returns the kernel to boot: choice is a package name, the path of
// a .deb, or empty for linux-image-amd64. A name that apt follows to another, as that one, is
// good for what it was at its first use. The package is
// fetched by apt-get and unpacked, never installed.
func findKernel(cache, choice string) (*kernel, error) {
	if strings.HasSuffix(choice, ".deb") {
		return cachedKernel(cache, choice, func(string) (string, error) { return filepath.Abs(choice) })
	}
	if choice == "" {
		choice = "linux-image-amd64"
	}
	if metaName.MatchString(choice) {
		// What was found before is good for ever: two runs compare
		// only if they boot the same kernel. Delete the cache to renew it.
		link := filepath.Join(cache, choice)
		b, err := os.ReadFile(link)
		if err != nil {
			name, err := realPackage(choice)
			if err != nil {
				return nil, err
			}
			if err := os.MkdirAll(cache, 0o755); err != nil {
				return nil, err
			}
			if err := os.WriteFile(link, []byte(name), 0o644); err != nil {
				return nil, err
			}
			b = []byte(name)
		}
		choice = strings.TrimSpace(string(b))
	}
	return cachedKernel(cache, choice, func(tmp string) (string, error) { return download(tmp, choice) })
}

var (
	metaName  = regexp.MustCompile(`^linux-image(-[0-9.]+)?-amd64$`)
	imageName = regexp.MustCompile(`linux-image-[0-9][^ \n]*[-+][^ \n]*-amd64`)
)

// realPackage asks apt which package a meta-package stands for.
func realPackage(meta string) (string, error) {
	if _, err := exec.LookPath("apt-cache"); err != nil {
		return "", fmt.Errorf("%w: no apt-cache here; give a Debian generic kernel package with LAB_KERNEL=FILE.deb", errMissing)
	}
	out, err := exec.Command("apt-cache", "depends", meta).Output()
	_, depends, _ := strings.Cut(string(out), "Depends:")
	name := imageName.FindString(depends)
	if err != nil || name == "" {
		return "", fmt.Errorf("%w: apt knows no %s (apt-get update), or give LAB_KERNEL=FILE.deb", errMissing, meta)
	}
	return name, nil
}

func download(dir, name string) (string, error) {
	cmd := exec.Command("apt-get", "-qq", "download", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: cannot download %s: %s (apt-get update), or give LAB_KERNEL=FILE.deb",
			errMissing, name, bytes.TrimSpace(lastLine(out)))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", name, len(found))
	}
	return found[0], nil
}

func lastLine(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

// cacheVersion is part of the cache key: raise it when what unpack leaves
// in the directory changes.
const cacheVersion = "1"

// cachedKernel returns the cache entry for key, made with fetch if need be.
// The entry is built aside and renamed: two labs at once are no trouble.
func cachedKernel(cache, key string, fetch func(tmp string) (string, error)) (*kernel, error) {
	sum := sha256.Sum256([]byte(cacheVersion + "\x00" + key))
	dir := filepath.Join(cache, hex.EncodeToString(sum[:8]))
	if k, err := openKernel(dir); err == nil {
		return k, nil
	}
	for _, tool := range []struct{ name, pkg string }{{"dpkg-deb", "dpkg"}, {"xz", "xz-utils"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			return nil, missing(tool.name, tool.pkg)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(cache, ".new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "lab: unpacking %s into %s (once)\n", key, dir)
	deb, err := fetch(tmp)
	if err != nil {
		return nil, err
	}
	if err := unpack(tmp, deb); err != nil {
		return nil, fmt.Errorf("%s: %w", deb, err)
	}
	if filepath.Dir(deb) == tmp {
		_ = os.Remove(deb)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return openKernel(dir)
}

// openKernel looks at a complete cache entry.
func openKernel(dir string) (*kernel, error) {
	found, err := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("%s: %d module trees", dir, len(found))
	}
	k := &kernel{Dir: dir, Vmlinux: filepath.Join(dir, "vmlinux"), Modules: found[0], Release: filepath.Base(found[0])}
	_, err = os.Stat(k.Vmlinux)
	return k, err
}

// unpack fills dir with vmlinux and the module tree of a kernel package.
func unpack(dir, deb string) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	bz, err := unpackTar(dir, tar.NewReader(pipe))
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	if bz == nil {
		return errors.New("no boot/vmlinuz in it")
	}
	if err := vmlinux(filepath.Join(dir, "vmlinux"), bz); err != nil {
		return err
	}
	if err := unpackModules(dir); err != nil {
		return err
	}
	// modules.dep serves modprobe (and the kernel's autoloading) in L1; the
	// lab itself does without, so a host without kmod is fine.
	if depmod, err := exec.LookPath("depmod"); err == nil {
		trees, _ := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
		for _, t := range trees {
			if out, err := exec.Command(depmod, "-b", dir, filepath.Base(t)).CombinedOutput(); err != nil {
				return fmt.Errorf("depmod: %s", bytes.TrimSpace(out))
			}
		}
	}
	return nil
}

// unwanted are module directories for hardware that QEMU does not give L1.
var unwanted = regexp.MustCompile(`/kernel/(sound|drivers/(gpu|media|iio|infiniband|usb|staging|hwmon|hid|platform|bluetooth|input|` +
	`comedi|mtd|scsi|soc|leds|mmc|isdn|ata|edac|rtc|video|i2c|spi|power|thunderbolt|firewire|net/(ethernet|wireless|usb|can|phy|dsa|fddi|ieee802154|wwan|ppp|hamradio|arcnet)))/`)

// unpackTar writes the wanted modules and returns the bzImage.
func unpackTar(dir string, r *tar.Reader) (bz []byte, err error) {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return bz, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(filepath.Clean("/"+strings.TrimPrefix(h.Name, ".")), "/usr")
		switch {
		case h.Typeflag != tar.TypeReg:
		case strings.HasPrefix(name, "/boot/vmlinuz-"):
			if bz, err = io.ReadAll(io.LimitReader(r, 64<<20)); err != nil {
				return nil, err
			}
		case strings.HasPrefix(name, "/lib/modules/") && !unwanted.MatchString(name):
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return nil, err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(path, b, 0o644); err != nil {
				return nil, err
			}
		}
	}
}

// unpackModules unpacks the modules of kernels that compress them: Debian's from 6.12 on.
func unpackModules(dir string) error {
	var packed []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko.xz") {
			packed = append(packed, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(packed, 500) {
		if out, err := exec.Command("xz", append([]string{"-d", "--"}, some...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("xz: %s", bytes.TrimSpace(out))
		}
	}
	return nil
}

// vmlinux unpacks the payload of a bzImage on the host: in L1 its own xz
// decompressor takes seconds under TCG. Layout: Documentation/arch/x86/boot.rst,
// setup_sects 0x1f1, payload_offset 0x248, payload_length 0x24c.
func vmlinux(path string, bz []byte) error {
	if len(bz) < 0x250 || string(bz[0x202:0x206]) != "HdrS" {
		return errors.New("vmlinuz is no bzImage")
	}
	base := (uint64(bz[0x1f1]) + 1) * 512
	off := base + uint64(binary.LittleEndian.Uint32(bz[0x248:]))
	end := off + uint64(binary.LittleEndian.Uint32(bz[0x24c:]))
	if end > uint64(len(bz)) || end-off < 8 {
		return errors.New("vmlinuz is cut off")
	}
	payload := bz[off : end-4] // the last four bytes are the unpacked size
	// The programs: the xz payload uses the x86 BCJ filter, which the Go
	// packages lack.
	var tool []string
	switch {
	case bytes.HasPrefix(payload, []byte("\xfd7zXZ\x00")):
		tool = []string{"xz", "-dc", "--single-stream"}
	case bytes.HasPrefix(payload, []byte("\x28\xb5\x2f\xfd")):
		if _, err := exec.LookPath("zstd"); err != nil {
			return missing("zstd", "zstd")
		}
		tool = []string{"zstd", "-dc"}
	default:
		return errors.New("payload of vmlinuz is neither xz nor zstd")
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(tool[0], tool[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(payload), f, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", tool[0], err)
	}
	return f.Close()
}
