package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/rootfs"
)

// Config says what is measured with. Empty paths are looked for beside the program, as lucid looks for them.
type Config struct {
	Lucid     string    // the program
	Kernel    string    // guest kernel, for QEMU and for counting
	Map       string    // its System.map
	Initramfs string    // the agent
	RootfsTar string    // a Debian, with git for the case 9p; default: the cached one of test/rootfs, which is built on first use
	Progress  io.Writer // lines for whoever waits; default none
	Runs      int       // of each measurement, 0: what the case thinks right

	// Limit is for all cases together; 0: none. A case that has had its share begins no further round, so that figures are of fewer
	// runs; what has not begun when it is reached is not measured.
	Limit      time.Duration
	Slow       bool          // the KVM interprets guest kernels (Machine.Soft): no trial starts of lucid
	CountOnly  bool          // boot does not start a container for its exits, which is no exact figure and minutes on a slow KVM
	FileBudget time.Duration // when a test of the case 9p ends that has not done all its operations; 0: 2 s
}

// World is what the cases of a run share. Close takes all of it away.
type World struct {
	Config
	dir    string // scratch, of this run alone
	tree   string // holds rootfs: what is exported to guests of QEMU
	serial atomic.Int64
	clock  clock
	warm   bool             // a container of ours has had its trial
	trials map[string]error // whether peers run here, by name
	end    []func()         // what Close has to do, last first
}

// rootfsName is the directory of World.tree that is the containers' root.
const rootfsName = "rootfs"

// NewWorld makes the scratch directory. Root file systems come with the first case that needs one.
func NewWorld(c Config) (*World, error) {
	dir, err := os.MkdirTemp("", "lucid-bench-")
	if err != nil {
		return nil, err
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	w := &World{trials: map[string]error{}, Config: c, dir: dir, tree: filepath.Join(dir, "tree")}
	w.end = append(w.end, func() {
		_ = unix.Unmount(filepath.Join(dir, "state-"+runsc, "null-netns"), unix.MNT_DETACH) // it leaves one
		_ = os.RemoveAll(dir)
	})
	return w, nil
}

// Close undoes everything, in reverse order.
func (w *World) Close() {
	for i := len(w.end) - 1; i >= 0; i-- {
		w.end[i]()
	}
	w.end = nil
}

func (w *World) progress(format string, args ...any) {
	fmt.Fprintf(w.Progress, "lucid-bench: "+format+"\n", args...)
}

// runs is how often to measure.
func (w *World) runs(otherwise int) int {
	if w.Runs > 0 {
		return w.Runs
	}
	return otherwise
}

// root is the containers' root file system with this program in it as worker.
func (w *World) root(ctx context.Context) (string, error) {
	root := filepath.Join(w.tree, rootfsName)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	tar := w.RootfsTar
	if tar == "" {
		var err error
		if tar, err = rootfs.Tar(ctx, rootfs.Userland, w.Progress); err != nil {
			return "", err
		}
	}
	w.progress("unpacking %s", tar)
	half := root + ".half"
	if err := os.MkdirAll(half, 0o755); err != nil {
		return "", err
	}
	if err := rootfs.Unpack(ctx, tar, half); err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(half, workDir), 0o777); err != nil {
		return "", err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(half, workerName), self, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(half, root); err != nil {
		return "", err
	}
	return root, w.allowDevices(root)
}

// allowDevices sees to it that what is chrooted into the root, as git is, can open its devices: the scratch directory may be on a file system
// mounted nodev. Containers have a /dev of their own.
func (w *World) allowDevices(root string) error {
	f, err := os.OpenFile(filepath.Join(root, "dev/null"), os.O_RDWR, 0)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, os.ErrPermission) || os.Geteuid() != 0 {
		return nil // who needs them will say so
	}
	if err := unix.Mount(w.tree, w.tree, "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	w.end = append(w.end, func() { _ = unix.Unmount(w.tree, unix.MNT_DETACH) })
	return os.NewSyscallError("mount", unix.Mount("", w.tree, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
}

// bundle is a container to be: a directory with config.json. Its root is shared with the others.
type bundle struct {
	id  string
	dir string
}

// newBundle makes one whose process is args. Files that the process makes go to workDir.
func (w *World) newBundle(ctx context.Context, args ...string) (*bundle, error) {
	root, err := w.root(ctx)
	if err != nil {
		return nil, err
	}
	b := &bundle{id: fmt.Sprintf("bench-%d-%d", os.Getpid(), w.serial.Add(1))}
	b.dir = filepath.Join(w.dir, b.id)
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		return nil, err
	}
	// lucid's example suits runc and crun alike.
	spec, err := rootfs.ReadConfig(ctx, w.Lucid, b.dir)
	if err != nil {
		return nil, err
	}
	spec.Version = "1.0.2" // the crun of Debian 12 refuses later ones
	spec.Root.Path, spec.Root.Readonly = root, false
	spec.Process.Terminal, spec.Process.Args = false, args
	return b, rootfs.WriteConfig(b.dir, spec)
}

// errSkip is wrapped by the reasons why a subject cannot be measured here.
var errSkip = errors.New("")

func skip(format string, args ...any) error {
	return fmt.Errorf("%s%w", fmt.Sprintf(format, args...), errSkip)
}

// needKVM skips without a KVM.
func needKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return skip("%v", err)
	}
	return f.Close()
}

// needProgram finds a peer.
func needProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", skip("%s is not installed", name)
	}
	return path, nil
}
