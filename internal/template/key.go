package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Key is what a template depends on. A VM of another key boots.
type Key struct {
	// Program is the lucid that saves and restores: each build is another.
	Program   File
	Kernel    File
	Initramfs File
	// KernelParams are what config.json adds to the guest's command line; the
	// rest of it follows from the other fields.
	KernelParams []string `json:",omitempty"`
	Memory       uint64   // bytes; a VM may have more, if the template is not Fixed
	VCPUs        int      // as Memory
	Transport    string
	Host         Host
}

// File is a file by what a replacement cannot keep.
type File struct {
	Path  string `json:",omitempty"` // says where, and takes no part in comparisons
	Inode uint64
	Size  int64 // bytes
	MTime int64 // nanoseconds since the epoch
}

// FileOf looks at a file.
func FileOf(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil { // /proc/self/exe may be deleted
		path = real
	}
	return fileOf(path, info), nil
}

func fileOf(path string, info os.FileInfo) File {
	return File{path, info.Sys().(*syscall.Stat_t).Ino, info.Size(), info.ModTime().UnixNano()}
}

// same says whether two are one.
func (f File) same(g File) bool {
	return f.Inode == g.Inode && f.Size == g.Size && f.MTime == g.MTime
}

// autoPrefix begins the names of templates that are found by their key.
const autoPrefix = "auto-"

// Name is the name of the template of this key that is made by itself.
func (k *Key) Name() string {
	c := *k
	c.Program.Path, c.Kernel.Path, c.Initramfs.Path = "", "", ""
	data, err := json.Marshal(&c)
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(data)
	return autoPrefix + hex.EncodeToString(sum[:8])
}

// sizeDiffers says in what a VM of the size of want cannot go on from a template of
// this key; empty: in nothing. A fixed template has one size.
func (k *Key) sizeDiffers(want *Key, fixed bool) string {
	switch mib := func(n uint64) uint64 { return n >> 20 }; {
	case fixed && k.Memory != want.Memory || k.Memory > want.Memory:
		return fmt.Sprintf("guest memory: it has %d MiB, not %d", mib(k.Memory), mib(want.Memory))
	case fixed && k.VCPUs != want.VCPUs || k.VCPUs > want.VCPUs:
		return fmt.Sprintf("vCPUs: it has %d, not %d", k.VCPUs, want.VCPUs)
	}
	return ""
}

// differs says in what a template's key is not the wanted one, but for the size;
// empty: in nothing.
func (k *Key) differs(want *Key) string {
	for _, f := range []struct {
		what      string
		got, want File
	}{{"lucid", k.Program, want.Program}, {"guest kernel", k.Kernel, want.Kernel}, {"initramfs", k.Initramfs, want.Initramfs}} {
		switch {
		case f.got.same(f.want):
		case f.got.Path == f.want.Path:
			return "the " + f.what + " has changed since: " + f.want.Path
		default:
			return fmt.Sprintf("it is for the %s %s, not %s", f.what, f.got.Path, f.want.Path)
		}
	}
	for _, f := range [][3]string{
		{"transport", k.Transport, want.Transport},
		{"kernel parameters", strings.Join(k.KernelParams, " "), strings.Join(want.KernelParams, " ")},
	} {
		if f[1] != f[2] {
			return fmt.Sprintf("%s: it has %q, not %q", f[0], f[1], f[2])
		}
	}
	return k.Host.differs(&want.Host)
}

// stale says why nothing on this host can use a template of this key any more;
// empty if something can.
func (k *Key) stale(host *Host) string {
	for _, f := range []File{k.Program, k.Kernel, k.Initramfs} {
		now, err := FileOf(f.Path)
		if err != nil {
			return err.Error()
		}
		if !now.same(f) {
			return f.Path + " has changed since"
		}
	}
	return k.Host.differs(host)
}
