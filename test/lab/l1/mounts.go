package l1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

type mountPoint struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	optional               bool
}

const noexecdev = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

var earlyMounts = []mountPoint{
	{source: "proc", target: "/proc", fstype: "proc", flags: noexecdev},
	{source: "sysfs", target: "/sys", fstype: "sysfs", flags: noexecdev},
	{source: "dev", target: "/dev", fstype: "devtmpfs", flags: unix.MS_NOSUID, data: "mode=0755"},
}

// lateMounts are made under the new root, over whatever the host has there.
// /tmp is left alone: it is the host's with a writable overlay on top, so
// that test binaries built into the host's /tmp are found.
var lateMounts = append(earlyMounts[:len(earlyMounts):len(earlyMounts)], []mountPoint{
	{source: "devpts", target: "/dev/pts", fstype: "devpts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "mode=0620,gid=5,ptmxmode=0666"},
	{source: "shm", target: "/dev/shm", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
	{source: "mqueue", target: "/dev/mqueue", fstype: "mqueue", flags: noexecdev, optional: true},
	{source: "run", target: "/run", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755"},
	{source: "cgroup2", target: "/sys/fs/cgroup", fstype: "cgroup2", flags: noexecdev, data: "nsdelegate"},
	{source: "debugfs", target: "/sys/kernel/debug", fstype: "debugfs", flags: noexecdev, optional: true},
	{source: "tracefs", target: "/sys/kernel/tracing", fstype: "tracefs", flags: noexecdev, optional: true},
	{source: "bpf", target: "/sys/fs/bpf", fstype: "bpf", flags: noexecdev, optional: true},
	{source: "scratch", target: labproto.ScratchDir, fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777,size=75%"},
}...)

func (m mountPoint) mount(root string) error {
	target := root + m.target
	if err := os.MkdirAll(target, 0o755); err != nil && !m.optional {
		return err
	}
	if err := unix.Mount(m.source, target, m.fstype, m.flags, m.data); err != nil && !m.optional {
		return fmt.Errorf("mount %s on %s (%s): %w", m.fstype, m.target, m.data, err)
	}
	return nil
}

// ninepOptions suit a lower layer that nobody writes: cache=loose keeps pages
// and dentries without asking again, noxattr spares overlayfs one round trip
// per lookup, access=any spares an attach per uid. 512000 is the largest
// message that the kernel's virtio transport takes.
const ninepOptions = "trans=virtio,version=9p2000.L,msize=512000,access=any,"

// rootOptions for the lower layer.
const rootOptions = ninepOptions + "cache=loose,noxattr"

const (
	lowDir   = "/lab/low"  // the host's files
	imageDir = "/lab/img"  // + 0, 1, …: the images
	rwDir    = "/lab/rw"   // tmpfs with upper and work
	newRoot  = "/lab/root" // the overlay
)

// makeRoot mounts the future root at newRoot: a tmpfs over the images over the
// host's files.
func makeRoot(req *labproto.Request) error {
	var lower []string
	for i := range req.Images {
		dev, dir := fmt.Sprint(labproto.PmemDevice, i), fmt.Sprint(imageDir, i)
		if err := waitFor(dev); err != nil {
			return err
		}
		m := mountPoint{source: dev, target: dir, fstype: "ext4", flags: unix.MS_RDONLY, data: "norecovery"}
		if err := m.mount(""); err != nil {
			return err
		}
		lower = append(lower, dir)
	}
	if req.HostRoot {
		m := mountPoint{source: labproto.RootTag, target: lowDir, fstype: "9p", flags: unix.MS_RDONLY, data: rootOptions}
		if err := m.mount(""); err != nil {
			return err
		}
		lower = append(lower, lowDir)
	}
	if len(lower) == 0 {
		return errors.New("request names no root")
	}
	rw := mountPoint{source: "rw", target: rwDir, fstype: "tmpfs", data: "mode=0755,size=75%"}
	if err := rw.mount(""); err != nil {
		return err
	}
	for _, d := range []string{rwDir + "/up", rwDir + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	ovl := mountPoint{
		source: "lab", target: newRoot, fstype: "overlay",
		data: "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + rwDir + "/up,workdir=" + rwDir + "/work,xino=off,index=off",
	}
	return ovl.mount("")
}

// enterRoot makes the other mounts, moves newRoot to / and changes into it.
func enterRoot(req *labproto.Request) error {
	for _, m := range lateMounts {
		if err := m.mount(newRoot); err != nil {
			return err
		}
	}
	// What udev makes on a running system; bash's <(…) needs it.
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+target, newRoot+"/dev/"+name); err != nil {
			return err
		}
	}
	if req.OutDir != "" {
		m := mountPoint{source: labproto.OutTag, target: req.OutDir, fstype: "9p", data: ninepOptions + "cache=mmap"}
		if err := m.mount(newRoot); err != nil {
			return err
		}
	}
	if req.ModTree != "" {
		m := mountPoint{source: newRoot + req.ModTree, target: labproto.KernelModules + req.Release, flags: unix.MS_BIND}
		if err := m.mount(newRoot); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// What systemd does: everything shared unless somebody unshares it.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share /: %w", err)
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	return enableControllers("/sys/fs/cgroup")
}

// enableControllers hands all controllers of the root cgroup to its children.
func enableControllers(root string) error {
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("cgroup controller %s: %w", c, err)
		}
	}
	return nil
}

// leaveOut flushes LAB_OUT, so that the host may kill QEMU at once.
func leaveOut(req *labproto.Request) error {
	if req.OutDir == "" {
		return nil
	}
	fd, err := unix.Open(req.OutDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("LAB_OUT: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("LAB_OUT: sync: %w", err)
	}
	return nil
}
