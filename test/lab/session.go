package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

// Exit statuses of the lab's own, next to the command's.
const (
	statusUsage   = 2
	statusTimeout = 124 // as timeout(1)
	statusLab     = 125 // L1 crashed or the lab could not run
)

// bootLimit is for an L1 that hangs while it boots: 5 s are usual, 40 s were
// seen on a host with a load of 20 per CPU.
const bootLimit = 3 * time.Minute

// session is one running L1.
type session struct {
	o     *options
	ends  [channels]*os.File // our ends
	cmd   *exec.Cmd
	cons  *console
	began time.Time

	timing struct{ started, exited float64 } // L1's uptime
}

// start boots QEMU. The calling goroutine must be locked to its thread and
// stay: QEMU's death signal comes when that thread ends.
func start(o *options, args []string, initrd *os.File) (*session, error) {
	s := &session{o: o, began: time.Now(), cons: &console{out: os.Stderr, verbose: o.Verbose}}
	cmd := exec.Command(o.QEMU, args...)
	for i := range s.ends {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socketpair", err)
		}
		if err := unix.SetNonblock(fds[0], true); err != nil {
			return nil, err
		}
		s.ends[i] = os.NewFile(uintptr(fds[0]), "lab")
		theirs := os.NewFile(uintptr(fds[1]), "qemu")
		defer theirs.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, initrd)
	cmd.Stderr = os.Stderr
	// A group of its own: ^C at the terminal is for the command in L1.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if o.Verbose {
		fmt.Fprintf(os.Stderr, "lab: %s %q\n", o.QEMU, args)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.cmd = cmd
	return s, nil
}

// run moves the streams until the command has ended and returns its status.
func (s *session) run() (int, error) {
	dead := make(chan error, 1)
	go func() { dead <- s.cmd.Wait() }()
	consoleDone := make(chan struct{})
	go func() { defer close(consoleDone); s.cons.routine(s.ends[chConsole]) }()
	go func() { _ = labproto.CopyIn(s.ends[chStdin], os.Stdin) }()
	var output sync.WaitGroup
	output.Go(func() { _ = labproto.CopyOut(os.Stdout, s.ends[chStdout]) })
	output.Go(func() { _ = labproto.CopyOut(os.Stderr, s.ends[chStderr]) })
	events := make(chan labproto.Event, 4)
	go s.routineEvents(events)
	orphaned := make(chan struct{})
	if !signal.Ignored(unix.SIGHUP) { // asked before Notify changes it
		go routineParent(os.Getppid(), orphaned)
	}
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(sigs)

	// However this ends, QEMU is gone when it does. dead delivers once.
	quit := func() {
		_ = s.cmd.Process.Kill()
		<-dead
		<-consoleDone
	}
	limit, boot := time.After(s.o.Timeout), time.After(bootLimit)
	interrupts := 0
	for {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil // QEMU is going; dead follows
				continue
			}
			switch e.Kind {
			case "started":
				s.timing.started = e.Uptime
				s.verbosef("L1 ready after %.2f s (its clock: %.2f s)", time.Since(s.began).Seconds(), e.Uptime)
			case "exited":
				s.timing.exited = e.Uptime
				output.Wait() // L1 sent it before the event
				quit()
				return e.Status, nil
			default:
				quit()
				s.cons.failed()
				return statusLab, fmt.Errorf("L1's init: %s", e.Error)
			}
		case sig := <-sigs:
			interrupts++
			final := sig == unix.SIGTERM || sig == unix.SIGHUP
			if final || interrupts > 2 || s.timing.started == 0 {
				quit()
				return statusLab, fmt.Errorf("%v: QEMU killed", sig)
			}
			s.order(int(sig.(syscall.Signal)))
		case <-orphaned:
			quit()
			return statusLab, errors.New("the program that started the lab is gone: QEMU killed (use nohup to outlive it)")
		case <-boot:
			if s.timing.started == 0 {
				quit()
				s.cons.failed()
				return statusLab, fmt.Errorf("L1 is not up after %v: QEMU killed", bootLimit)
			}
		case <-limit:
			quit()
			return statusTimeout, fmt.Errorf("still running after LAB_TIMEOUT=%v: QEMU killed", s.o.Timeout)
		case err := <-dead:
			<-consoleDone
			output.Wait()
			return statusLab, s.crashed(err)
		}
	}
}

// routineParent closes gone when the parent process has ended: a lab that
// make or go test started and that nobody waits for would load the machine
// until its time limit.
func routineParent(ppid int, gone chan<- struct{}) {
	if ppid == 1 {
		return
	}
	fd, err := unix.PidfdOpen(ppid, 0)
	if err != nil {
		return // older than Linux 5.3: LAB_TIMEOUT has to do
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	close(gone)
}

// crashed makes one clear line of an L1 that ended by itself.
func (s *session) crashed(err error) error {
	crash := s.cons.failed()
	switch {
	case crash != "":
		return fmt.Errorf("L1 crashed: %s", strings.TrimSpace(crash))
	case err != nil:
		return fmt.Errorf("QEMU failed: %w", err)
	}
	return errors.New("L1 powered off before the command had ended")
}

// routineEvents ends when the control port closes.
func (s *session) routineEvents(events chan<- labproto.Event) {
	defer close(events)
	r := labproto.NewReader(s.ends[chControl])
	for {
		b, err := r.Next()
		if err != nil {
			return
		}
		var e labproto.Event
		if err := json.Unmarshal(b, &e); err != nil {
			e = labproto.Event{Kind: "failed", Error: "event: " + err.Error()}
		}
		events <- e
	}
}

func (s *session) order(sig int) {
	b, err := json.Marshal(labproto.Order{Signal: sig})
	if err == nil {
		err = labproto.WriteChunk(s.ends[chControl], make([]byte, len(b)+4), b)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.verbosef("signal: %v", err)
	}
}

func (s *session) verbosef(format string, args ...any) {
	if s.o.Verbose {
		fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...)
	}
}
