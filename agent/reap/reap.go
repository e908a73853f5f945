package reap

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// signalBase is added to the number of the signal that killed a process, as
// shells and runc do.
const signalBase = 128

// Process is a child that was made by Spawn.
type Process struct {
	Pid  int
	Done <-chan int // gives the exit code, or 128 + signal, once
}

// Reaper waits for all children of this program.
type Reaper struct {
	mu      sync.Mutex
	waiters map[int]chan int // protected by mu
	running bool             // protected by mu; RoutineReap was started
}

// New returns a Reaper. It starts to wait with the first Spawn.
func New() *Reaper {
	return &Reaper{waiters: make(map[int]chan int)}
}

// Spawn runs start, which makes one child, and registers it. start may not
// wait for anything.
func (r *Reaper) Spawn(start func() (pid int, err error)) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running {
		r.running = true
		// One that is pending stands for all: take looks for every child.
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, unix.SIGCHLD)
		go r.RoutineReap(ended)
	}
	pid, err := start()
	if err != nil {
		return nil, err
	}
	done := make(chan int, 1)
	r.waiters[pid] = done
	return &Process{Pid: pid, Done: done}, nil
}

// RoutineReap takes the status of every child, for as long as the program
// lives.
func (r *Reaper) RoutineReap(ended <-chan os.Signal) {
	for range ended {
		r.take()
	}
}

// take reaps what has ended and tells those who wait.
func (r *Reaper) take() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL, nil)
		if err != nil || pid <= 0 {
			return
		}
		done, known := r.waiters[pid]
		if !known {
			continue // an orphan
		}
		delete(r.waiters, pid)
		if ws.Signaled() {
			done <- signalBase + int(ws.Signal())
		} else {
			done <- ws.ExitStatus()
		}
	}
}
