package l1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

func loadModules(mods []labproto.Module) error {
	for _, m := range mods {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(m labproto.Module) error {
	f, err := os.Open(filepath.Join(labproto.ModuleDir, m.File))
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), m.Params, 0)
	// EEXIST: loaded already. ENODEV: the hardware is not there (crc32c-intel
	// on a CPU without it), which is for the user of the module to miss.
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("module %s: %w", m.File, err)
	}
	return nil
}

// openPorts opens the virtio-serial ports. The device announces them one by
// one after its driver is loaded, so they take some milliseconds to appear.
func openPorts(patience time.Duration) (map[string]*os.File, error) {
	want := []string{labproto.PortControl, labproto.PortStdin, labproto.PortStdout, labproto.PortStderr}
	deadline := time.Now().Add(patience)
	for {
		found, err := portDevices("/sys/class/virtio-ports")
		if err != nil {
			return nil, err
		}
		ports := make(map[string]*os.File)
		for _, name := range want {
			dev, ok := found[name]
			if !ok {
				break
			}
			// Not os.OpenFile: that would make it non-blocking, and the
			// driver's wake-ups are not made for edge-triggered epoll.
			fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			ports[name] = os.NewFile(uintptr(fd), dev)
		}
		if len(ports) == len(want) {
			return ports, nil
		}
		for _, f := range ports {
			_ = f.Close()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("virtio-serial ports: %v are there, %v wanted", found, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// portDevices maps port names to device files.
func portDevices(class string) (map[string]string, error) {
	found := make(map[string]string)
	dirs, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(class, d.Name(), "name"))
		if err == nil {
			found[strings.TrimSpace(string(b))] = "/dev/" + d.Name()
		}
	}
	return found, nil
}

func waitFor(path string) error {
	for range 1000 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("%s did not appear", path)
}
