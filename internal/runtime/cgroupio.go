package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// linux.resources.blockIO on the host's cgroup. What a container reads and
// writes in its files the sandbox process does for it, so a limit that names
// the host's block devices has its place here; the guest has no block devices.

// errNoIO is what blockIO comes to on a host of cgroup v1, and without a cgroup.
var errNoIO = errors.New("linux.resources.blockIO: needs linux.cgroupsPath, on a host with cgroup v2")

// setting is one write to a file of a cgroup.
type setting struct{ file, value string }

// ioSettings says what to write where: cgroup-v2.rst, "IO". With the scheduler
// BFQ weights go to files of its own.
func ioSettings(b *specs.LinuxBlockIO, bfq bool) []setting {
	var list []setting
	weight := func(w uint16) uint64 {
		if bfq {
			return uint64(w)
		}
		// From v1's 10 to 1000 to v2's 1 to 10000, as runc does it.
		return 1 + (uint64(max(w, 10))-10)*9999/990
	}
	file := "io.weight"
	if bfq {
		file = "io.bfq.weight"
	}
	if b.Weight != nil && *b.Weight != 0 {
		list = append(list, setting{file, fmt.Sprint(weight(*b.Weight))})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil && *d.Weight != 0 {
			list = append(list, setting{file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, weight(*d.Weight))})
		}
	}
	for _, limit := range []struct {
		key string
		of  []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice},
		{"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice},
		{"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range limit.of {
			rate := "max"
			if d.Rate != 0 {
				rate = fmt.Sprint(d.Rate)
			}
			list = append(list, setting{"io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, limit.key, rate)})
		}
	}
	return list
}

// limitIO applies it; nil is no limit.
func (c *cgroups) limitIO(b *specs.LinuxBlockIO) error {
	if b == nil {
		return nil
	}
	if !c.v2 {
		return errNoIO
	}
	dir := c.all[0].target
	_, err := os.Lstat(filepath.Join(dir, "io.bfq.weight"))
	for _, s := range ioSettings(b, err == nil) {
		// Not made if it is not there, whatever the file system.
		f, err := os.OpenFile(filepath.Join(dir, s.file), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("linux.resources.blockIO: this host's io controller has no %s", s.file)
		}
		if err == nil {
			_, err = f.WriteString(s.value)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return fmt.Errorf("linux.resources.blockIO: %q: %w", s.value, err)
		}
	}
	return nil
}
