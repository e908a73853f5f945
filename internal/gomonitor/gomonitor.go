// Package gomonitor keeps the Go runtime's monitor thread ("sysmon") from
// disturbing others while a process starts.
package gomonitor

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const tasks = "/proc/self/task"

// slack is by how much the monitor's sleeps may be late, in nanoseconds: ten times the
// longest that it asks for. Each time that it wakes it also has the vCPU's goroutine, which has been
// in KVM_RUN since, look for others to run, and another thread too (docs/vmm.md).
const slack = "100000000"

// Quiet lets the monitor sleep longer than it asks for (timer slack, proc(5)).
// Whenever the process has been idle it sleeps 20 µs fifty times in a row, and a vCPU in
// KVM_RUN counts as idle: for a start that takes a second these are thousands of wake-ups
// that find nothing to do. What it is there for comes so much later: it takes the right to run
// goroutines away from a thread whose system call blocks while others wait. So the process
// should have two more of these rights (GOMAXPROCS) than vCPUs, until Release: for
// a read of stdin, and for the rest.
//
// The runtime starts the monitor before anything else, so it is the second thread.
// Threads that the monitor starts inherit the slack. Errors cost time only.
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
		setSlack(tids[1], slack)
	}
}

// Release undoes Quiet for all threads of the process.
func Release() {
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return
	}
	main := getSlack(strconv.Itoa(os.Getpid()))
	for _, t := range threads {
		if main != "" && getSlack(t.Name()) == slack {
			setSlack(t.Name(), main)
		}
	}
}

func slackFile(thread string) string { return "/proc/" + thread + "/timerslack_ns" }

// getSlack returns nothing where it cannot be read.
func getSlack(thread string) string {
	text, err := os.ReadFile(slackFile(thread))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func setSlack(thread, to string) {
	fd, err := unix.Open(slackFile(thread), unix.O_WRONLY|unix.O_CLOEXEC, 0) // not os.WriteFile, which would ask the poller
	if err == nil {
		_, _ = unix.Write(fd, []byte(to))
		_ = unix.Close(fd)
	}
}
