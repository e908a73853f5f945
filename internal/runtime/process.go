package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// startTime reads when a process was started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name, field 2, is in parentheses and may hold anything.
	i := bytes.LastIndexByte(data, ')')
	fields := bytes.Fields(data[i+1:])
	const starttime = 22 - 3 // field 3 is the first after the name
	if i < 0 || len(fields) <= starttime {
		return 0, fmt.Errorf("/proc/%d/stat: unexpected format", pid)
	}
	return strconv.ParseUint(string(fields[starttime]), 10, 64)
}

// signalProcess sends a signal to exactly the process that is meant: a pidfd
// is opened first and the start time compared afterwards.
func signalProcess(pid int, start uint64, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	now, err := startTime(pid)
	if err != nil || now != start {
		return unix.ESRCH
	}
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, sig, nil, 0))
}

// killTimeout is how long a killed sandbox process may take to vanish: it has
// guest memory to give back. runc's limit, 10 s, was passed once in a lab on a
// host that was far too busy (and by a clock of the lab's that ran too fast).
const killTimeout = 30 * time.Second

// end kills the sandbox process of dir, if there is one, and waits until it
// is gone. Precondition: the directory is locked.
func end(dir string, rec *record) error {
	if rec != nil && rec.Pid != 0 && alive(dir) {
		err := signalProcess(rec.Pid, rec.StartTime, unix.SIGKILL)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	begin := time.Now()
	for pause := time.Millisecond; alive(dir); pause = min(2*pause, 50*time.Millisecond) {
		if time.Since(begin) > killTimeout {
			return errors.New(textStillRunning)
		}
		// Its pid was not recorded: the creator died between spawning it and
		// writing that down. It is about to notice; if it is stopped or
		// stuck, this is the way to find it.
		if time.Since(begin) > 200*time.Millisecond {
			for _, pid := range holders(filepath.Join(dir, aliveFile)) {
				if start, err := startTime(pid); err == nil {
					_ = signalProcess(pid, start, unix.SIGKILL)
				}
			}
		}
		time.Sleep(pause)
	}
	return nil
}

// holders lists other processes that have a file open.
func holders(path string) []int {
	want, err := os.Stat(path)
	if err != nil {
		return nil
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return nil
	}
	var pids []int
	for _, fd := range fds {
		// A cheap look first: stat on someone's fd can block (a dead NFS).
		target, err := os.Readlink(fd)
		if err != nil || filepath.Base(target) != aliveFile {
			continue
		}
		got, err := os.Stat(fd)
		if err != nil || !os.SameFile(got, want) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(fd))))
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
