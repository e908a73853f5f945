package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What of linux.resources numbers the host's devices and CPUs, on the host's
// cgroup. What a container reads and writes in its files the sandbox process
// does for it, and the VM's CPUs are threads of that.

var (
	// errNoIO is what blockIO comes to on a host of cgroup v1, and without a cgroup.
	errNoIO = errors.New("linux.resources.blockIO: needs linux.cgroupsPath, on a host with cgroup v2")
	// errNoCpuset is what cpus and mems come to without one.
	errNoCpuset = errors.New("linux.resources.cpu.cpus and mems: need linux.cgroupsPath, on a host with the cpuset controller")
)

// limit applies it; nil is no limit.
func (c *cgroups) limit(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := c.limitCPUs(r.CPU); err != nil {
		return err
	}
	return c.limitIO(r.BlockIO)
}

// limitCPUs says on which CPUs, and in which nodes' memory, the VM runs.
func (c *cgroups) limitCPUs(cpu *specs.LinuxCPU) error {
	if cpu == nil || cpu.Cpus == "" && cpu.Mems == "" {
		return nil
	}
	for _, h := range c.all {
		if !c.v2 && h.controller != "cpuset" {
			continue
		}
		for _, s := range []setting{{"cpuset.cpus", cpu.Cpus}, {"cpuset.mems", cpu.Mems}} {
			if s.value == "" {
				continue
			}
			err := s.write(h.target)
			if errors.Is(err, os.ErrNotExist) {
				return errNoCpuset
			}
			if err != nil {
				return fmt.Errorf("linux.resources.cpu: %s %q: %w", s.file, s.value, err)
			}
		}
		return nil
	}
	return errNoCpuset
}

// setting is one write to a file of a cgroup.
type setting struct{ file, value string }

// write does it. The file is not made if it is not there, whatever the file
// system.
func (s setting) write(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, s.file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.value)
	return errors.Join(err, f.Close())
}

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
		err := s.write(dir)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("linux.resources.blockIO: this host's io controller has no %s", s.file)
		}
		if err != nil {
			return fmt.Errorf("linux.resources.blockIO: %q: %w", s.value, err)
		}
	}
	return nil
}
