// Package gomonitor keeps the Go runtime's monitor thread ("sysmon") from
// disturbing others while a process starts.
package gomonitor

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const tasks = "/proc/self/task"

// Quiet makes the monitor wait for its turn (SCHED_BATCH, sched(7)). Whenever the
// process has been idle it sleeps 20 µs fifty times in a row, and takes the CPU from
// whom it finds there after each: from a vCPU that is an exit and two switches, for
// nothing. Where a CPU is idle it wakes as before. Threads that the monitor starts
// inherit the policy, and programs that these start, until Release.
//
// The runtime starts the monitor before anything else, so it is the second thread.
// Errors cost time only.
func Quiet() {
	fd, err := unix.Open(tasks, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [512]byte
	n, err := unix.ReadDirent(fd, buf[:]) // in the order of their creation
	if err != nil {
		return
	}
	_, _, tids := unix.ParseDirent(buf[:n], 2, nil)
	if len(tids) == 2 {
		setPolicy(tids[1], unix.SCHED_NORMAL, unix.SCHED_BATCH)
	}
}

// Release undoes Quiet for all threads of the process.
func Release() {
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return
	}
	main, err := unix.SchedGetAttr(os.Getpid(), 0)
	if err != nil || main.Policy == unix.SCHED_BATCH {
		return // who started the process wants it so
	}
	for _, t := range threads {
		setPolicy(t.Name(), unix.SCHED_BATCH, unix.SCHED_NORMAL)
	}
}

// setPolicy changes the policy of a thread that has the policy from, and nothing
// else of it.
func setPolicy(thread string, from, to uint32) {
	tid, err := strconv.Atoi(thread)
	if err != nil {
		return
	}
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil || attr.Policy != from {
		return
	}
	attr.Policy = to
	_ = unix.SchedSetAttr(tid, attr, 0)
}
