package systemd

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// memoryOverhead is what a sandbox process needs besides its VM's memory, in
	// bytes: its own, KVM's tables and the page tables for 1/64 of the memory,
	// and a part of the page cache that it is served from.
	memoryOverhead = 64 << 20
	memoryShift    = 6
	// tasksOverhead are the threads of a sandbox process, one for each request
	// of the guest's that waits for the host's file system. The guest's
	// processes are none of the host's.
	tasksOverhead = 512
	// infinity is "no limit" in each property.
	infinity = math.MaxUint64
)

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// limits are the properties for what r sets, as runc has them, with two
// differences: the cgroup holds a whole VM of memory bytes and the threads that
// serve it. So the memory limit is never below what that needs, and the limit of
// tasks is higher: the container's own are kept in the guest.
func limits(r *specs.LinuxResources, memory uint64, v2 bool, version int) ([]dbus.Property, error) {
	if r == nil {
		return nil, nil
	}
	props := append(memoryLimits(r.Memory, memory, v2), cpuLimits(r.CPU, v2, version)...)
	if p := r.Pids; p != nil && value(p.Limit) != 0 {
		most := uint64(infinity)
		if *p.Limit > 0 {
			most = uint64(*p.Limit) + tasksOverhead
		}
		props = append(props, property("TasksMax", most))
	}
	if r.CPU == nil || !v2 || version < 244 {
		return props, nil // on v1 systemd leaves cpusets alone
	}
	for _, set := range []struct{ name, field, list string }{
		{"AllowedCPUs", "cpus", r.CPU.Cpus}, {"AllowedMemoryNodes", "mems", r.CPU.Mems},
	} {
		if set.list == "" {
			continue
		}
		mask, err := bitmask(set.list)
		if err != nil {
			return nil, fmt.Errorf("linux.resources.cpu.%s: %w", set.field, err)
		}
		props = append(props, property(set.name, mask))
	}
	return props, nil
}

func memoryLimits(m *specs.LinuxMemory, memory uint64, v2 bool) []dbus.Property {
	if m == nil {
		return nil
	}
	var props []dbus.Property
	limit := value(m.Limit)
	most := uint64(infinity)
	if limit > 0 {
		most = max(uint64(limit), memory)
		most += memoryOverhead + most>>memoryShift
	}
	switch {
	case limit == 0:
	case v2:
		props = append(props, property("MemoryMax", most))
	default:
		props = append(props, property("MemoryLimit", most))
	}
	if !v2 {
		return props
	}
	if low := value(m.Reservation); low > 0 {
		props = append(props, property("MemoryLow", uint64(low)))
	}
	switch swap := value(m.Swap); { // v1's counts memory and swap together
	case swap < 0:
		props = append(props, property("MemorySwapMax", uint64(infinity)))
	case swap > 0 && limit > 0 && swap >= limit:
		props = append(props, property("MemorySwapMax", uint64(swap-limit)))
	}
	return props
}

func cpuLimits(c *specs.LinuxCPU, v2 bool, version int) []dbus.Property {
	if c == nil {
		return nil
	}
	var props []dbus.Property
	shares, idle := value(c.Shares), v2 && version >= 252 && value(c.Idle) == 1
	switch {
	case idle:
		props = append(props, property("CPUWeight", uint64(0))) // SCHED_IDLE
	case shares != 0 && v2:
		shares = min(max(shares, 2), 262144) // v1's range to v2's 1 to 10000
		props = append(props, property("CPUWeight", 1+(shares-2)*9999/262142))
	case shares != 0:
		props = append(props, property("CPUShares", shares))
	}
	quota, period := value(c.Quota), value(c.Period)
	if period != 0 && version >= 242 {
		props = append(props, property("CPUQuotaPeriodUSec", period))
	}
	if quota != 0 || period != 0 {
		props = append(props, property("CPUQuotaPerSecUSec", perSecond(quota, period)))
	}
	return props
}

// perSecond is a quota of CPU time, in µs per second. systemd keeps whole
// percents: rounded up, so that the guest gets what it is promised.
func perSecond(quota int64, period uint64) uint64 {
	if quota <= 0 {
		return infinity
	}
	if period == 0 {
		period = 100000 // the kernel's default
	}
	hi, lo := bits.Mul64(uint64(quota), 1e6)
	if hi >= period {
		return infinity
	}
	q, _ := bits.Div64(hi, lo, period)
	const percent = 10000
	if rest := q % percent; rest != 0 && q <= infinity-percent {
		q += percent - rest
	}
	return q
}

// bitmask turns a list such as 0-2,7 into bytes, the lowest bit of the first for 0.
func bitmask(list string) ([]byte, error) {
	const most = 8192 // the kernel's largest NR_CPUS
	var mask []byte
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if first == "" && !isRange {
			continue // the kernel takes "0,,1"
		}
		from, err := strconv.ParseUint(first, 10, 32)
		to := from
		if err == nil && isRange {
			to, err = strconv.ParseUint(last, 10, 32)
		}
		if err != nil || to < from || to >= most {
			return nil, fmt.Errorf("%q is no list of numbers below %d", list, most)
		}
		for n := from; n <= to; n++ {
			for uint64(len(mask)) <= n/8 {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	if len(mask) == 0 {
		return nil, fmt.Errorf("%q is empty", list)
	}
	return mask, nil
}

// value is what p points at, or zero.
func value[T int64 | uint64](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}
