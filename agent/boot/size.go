package boot

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/kernfile"
	"github.com/lucid-containers/lucid/internal/wire"
)

// Size is how a guest that goes on from a template becomes larger than that. The
// zero value has to be prepared.
type Size struct {
	sys   int // sysfs, mounted nowhere: a mount would be copied for each container. 0: none
	block uint64
	vcpus int // that run
}

// Files of sysfs: Documentation/admin-guide/mm/memory-hotplug.rst and
// Documentation/core-api/cpu_hotplug.rst.
const (
	memoryProbe  = "devices/system/memory/probe"
	memoryBlock  = "devices/system/memory/block_size_bytes" // hexadecimal
	memoryOnline = "devices/system/memory/auto_online_blocks"
	cpuDir       = "devices/system/cpu/cpu"
)

// maxCPUs bounds the search for CPUs.
const maxCPUs = 64

// Prepare finds out what the kernel offers. A kernel that cannot add memory or start
// CPUs is no failure.
func (s *Size) Prepare() *wire.Prepared {
	if s.sys == 0 {
		fd, err := mountSysfs()
		if err != nil {
			return new(wire.Prepared)
		}
		s.sys = fd
	}
	probe := unix.Faccessat(s.sys, memoryProbe, unix.W_OK, 0) == nil
	if online := s.read(memoryOnline); probe && bytes.HasPrefix(online, []byte("online")) {
		s.block, _ = strconv.ParseUint(string(bytes.TrimSpace(s.read(memoryBlock))), 16, 64)
	}
	// The first one has no such file: it cannot be stopped.
	s.vcpus = 1
	n := 1
	for ; n < maxCPUs; n++ {
		online := s.read(cpuDir + itoa(n) + "/online")
		if len(online) == 0 {
			break
		}
		if online[0] == '1' {
			s.vcpus++
		}
	}
	return &wire.Prepared{MemoryBlock: s.block, VCPUs: n}
}

// mountSysfs returns the top directory of a sysfs.
func mountSysfs() (int, error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	return fd, os.NewSyscallError("fsmount", err)
}

// read returns the beginning of a file of sysfs; empty if that fails.
func (s *Size) read(name string) []byte {
	fd, err := unix.Openat(s.sys, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [64]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return nil
	}
	return buf[:n]
}

// Grow takes into use what the host says is there.
func (s *Size) Grow(g *wire.Grow) error {
	before := totalRAM()
	for _, r := range g.Memory {
		if s.block == 0 || r.Addr%s.block != 0 || r.Size%s.block != 0 {
			return &os.PathError{Op: "write", Path: memoryProbe, Err: unix.EINVAL}
		}
		for at := uint64(0); at < r.Size; at += s.block {
			if err := kernfile.WriteAt(s.sys, memoryProbe, "0x"+strconv.FormatUint(r.Addr+at, 16)); err != nil {
				return err
			}
		}
	}
	for ; s.vcpus < g.VCPUs; s.vcpus++ {
		if err := kernfile.WriteAt(s.sys, cpuDir+itoa(s.vcpus)+"/online", "1"); err != nil {
			return err
		}
	}
	if len(g.Memory) > 0 {
		scaleLimits(before, totalRAM())
	}
	if g.Limit != 0 {
		return kernfile.Write(CgroupDir+"/memory.max", strconv.FormatUint(g.Limit, 10))
	}
	return nil
}

// totalRAM is MemTotal in bytes.
func totalRAM() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 1
	}
	return max(info.Totalram*uint64(info.Unit), 1)
}

// sizedAtBoot are limits that the kernel derives from its memory when it boots, and
// does not look at again. Tables of hashes stay as they are.
var sizedAtBoot = []string{
	"kernel/threads-max", "fs/file-max", "fs/epoll/max_user_watches", "fs/inotify/max_user_watches",
	"net/ipv4/tcp_mem", "net/ipv4/udp_mem",
}

// scaleLimits gives a guest whose memory has grown the limits that it would have
// booted with. One that it does not have stays as it is.
func scaleLimits(before, now uint64) {
	for _, name := range sizedAtBoot {
		if old, err := os.ReadFile("/proc/sys/" + name); err == nil {
			_ = kernfile.Write("/proc/sys/"+name, scale(string(old), before, now))
		}
	}
	limitTasks()
	// Of init, and so of all processes: kernel/fork.c, fork_init.
	for _, which := range []int{unix.RLIMIT_NPROC, rlimitSigpending} {
		var r unix.Rlimit
		if unix.Getrlimit(which, &r) == nil && r.Max != unix.RLIM_INFINITY {
			r.Cur, r.Max = scaled(r.Cur, before, now), scaled(r.Max, before, now)
			_ = unix.Setrlimit(which, &r)
		}
	}
}

const rlimitSigpending = 11 // asm-generic/resource.h

// scale multiplies each number of a line.
func scale(line string, before, now uint64) string {
	words := strings.Fields(line)
	for i, w := range words {
		if n, err := strconv.ParseUint(w, 10, 64); err == nil {
			words[i] = strconv.FormatUint(scaled(n, before, now), 10)
		}
	}
	return strings.Join(words, " ")
}

// maxScaled bounds what scaled makes of a number: sysctls are signed, and some have
// 32 bits.
const maxScaled = 1 << 30

// scaled is n*now/before; a number that means "no limit" stays.
func scaled(n, before, now uint64) uint64 {
	if n > maxScaled {
		return n
	}
	return min(uint64(float64(n)*(float64(now)/float64(before))), maxScaled)
}
