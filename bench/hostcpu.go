package bench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hostCPU is what a start takes of the host's CPUs outside of the guest until the container's first byte, in ms: the
// command, and all threads of the sandbox process but those of vCPUs.
func hostCPU(ctx context.Context, w *World, s *ociSubject) (float64, error) {
	b, err := w.newBundle(ctx, "sh", "-c", "echo x; exec sleep 3600")
	if err != nil {
		return 0, err
	}
	ctx, cancel := withLimit(ctx)
	defer cancel()
	pidFile := filepath.Join(b.dir, "pid") // to ask for the state would cost the process something
	cmd, err := s.command(ctx, w, "run", "--pid-file", pidFile, "--bundle", b.dir, b.id)
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait() // it was killed
	defer s.remove(w, b)
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		return 0, failed(ctx, s.label+" run", err, "no output")
	}
	used, err := threadTimes(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, err
	}
	box, err := threadTimes(pid)
	if err != nil {
		return 0, err
	}
	if err := dropVCPUs(ctx, box); err != nil {
		return 0, err
	}
	maps.Copy(used, box)
	return float64(sum(used)) / 1e6, nil
}

// dropVCPUs takes those of a sandbox process out of its threads. They wait in KVM_RUN when the container sleeps.
func dropVCPUs(ctx context.Context, threads map[string]uint64) error {
	for {
		n := len(threads)
		for dir := range threads {
			if call, err := os.ReadFile(filepath.Join(dir, "syscall")); err == nil && inGuest(string(call)) {
				delete(threads, dir)
			}
		}
		if len(threads) < n {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("no thread of the sandbox process came to rest in KVM_RUN: %w", context.Cause(ctx))
		}
	}
}

// inGuest says whether a thread waits in KVM_RUN, by its /proc/PID/task/TID/syscall (proc(5)): number, six arguments, stack
// and instruction pointer. KVM's own thread for a VM is a copy of the one that made its first vCPU run, without a stack.
func inGuest(call string) bool {
	f := strings.Fields(call)
	return len(f) == 9 && f[0] == strconv.Itoa(unix.SYS_IOCTL) && f[2] == kvmRun && f[7] != "0x0"
}

const kvmRun = "0xae80"

// threadTimes is what each thread of a process has used, in ns of CPU, by its directory in /proc. From schedstat: clock ticks
// are too coarse.
func threadTimes(pid int) (map[string]uint64, error) {
	dirs, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
	if err != nil {
		return nil, err
	}
	all := make(map[string]uint64, len(dirs))
	for _, dir := range dirs {
		data, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			continue // a thread that has ended
		}
		first, _, _ := strings.Cut(string(data), " ")
		if all[dir], err = strconv.ParseUint(first, 10, 64); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func sum(times map[string]uint64) (ns uint64) {
	for _, t := range times {
		ns += t
	}
	return ns
}
