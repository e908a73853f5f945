package boot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// portsDir lists the virtio-serial ports: no udev makes names in /dev here.
const portsDir = "/sys/class/virtio-ports"

// portLimit bounds the wait for a port to be announced.
const portLimit = 10 * time.Second

// openPort opens a port by its name. The kernel learns the name by a message of
// the device and sends a uevent then, so the wait is for uevents. The descriptor
// blocks: a write waits until the host has opened its end.
func openPort(name string) (int, error) {
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil && err != unix.EBUSY {
		return -1, os.NewSyscallError("mount /sys", err)
	}
	events, err := openUevents()
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(events) }()
	deadline := time.Now().Add(portLimit)
	for {
		dev, err := findPort(portsDir, name)
		if err == nil {
			return openNode(dev, "/dev/"+name)
		}
		left := time.Until(deadline)
		if !errors.Is(err, os.ErrNotExist) || left <= 0 {
			return -1, err
		}
		if err := waitUevent(events, left); err != nil {
			return -1, err
		}
	}
}

// findPort returns the device number of the port with that name.
func findPort(dir, name string) (uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(dir, e.Name(), "name"))
		if err != nil || string(bytes.TrimSpace(got)) != name {
			continue // a port without a name has no such file
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), "dev"))
		if err != nil {
			return 0, err
		}
		return parseDev(strings.TrimSpace(string(b)))
	}
	return 0, &os.PathError{Op: "find port", Path: name, Err: os.ErrNotExist}
}

// parseDev parses "major:minor".
func parseDev(s string) (uint64, error) {
	major, minor, _ := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return unix.Mkdev(uint32(a), uint32(b)), nil
}

func openNode(dev uint64, node string) (int, error) {
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(dev)); err != nil && err != unix.EEXIST {
		return -1, &os.PathError{Op: "mknod", Path: node, Err: err}
	}
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: node, Err: err}
	}
	return fd, nil
}

// kernelGroup is the multicast group of the kernel's own uevents.
const kernelGroup = 1

func openUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// waitUevent waits for any uevent.
func waitUevent(fd int, limit time.Duration) error {
	tv := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var buf [4096]byte
	_, err := unix.Read(fd, buf[:])
	// ENOBUFS: some were lost, so there were some. EAGAIN: the time is up.
	if err == nil || err == unix.EINTR || err == unix.ENOBUFS || err == unix.EAGAIN {
		return nil
	}
	return os.NewSyscallError("read", err)
}

// serialOpener opens streams on the one port for them, which it opens with the
// first stream: by then the host has opened its end.
type serialOpener struct {
	mu  sync.Mutex
	mux *wire.Mux // protected by mu
}

func (o *serialOpener) Open(id uint64) (wire.Stream, error) {
	mux, err := o.get()
	if err != nil {
		return nil, err
	}
	return mux.Open(id)
}

func (o *serialOpener) get() (*wire.Mux, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mux != nil {
		select {
		case <-o.mux.Done(): // the host has closed and opened its end
		default:
			return o.mux, nil
		}
	}
	fd, err := openPort(wire.StreamPortName)
	if err != nil {
		return nil, err
	}
	c, err := newConn(fd, wire.StreamPortName)
	if err != nil {
		return nil, err
	}
	o.mux = wire.NewMux(c)
	return o.mux, nil
}
