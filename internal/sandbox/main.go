package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/gomonitor"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/vmm"
)

const (
	// createTimeout is for boot and container, on software KVM: some 30 s
	// there, and more on a busy host.
	createTimeout = 5 * time.Minute
	// answerGrace lets answers out to the callers of the control socket.
	answerGrace = 200 * time.Millisecond

	// failed is the exit status of a container whose VM failed it: what
	// containerd reports when it knows nothing.
	failed = 255

	// settled is when a start is over on hardware, settledSlow at the latest on a KVM that interprets. After
	// settledLate that is so on a busy one too.
	settled, settledSlow, settledLate = time.Second, 3 * time.Second, 10 * time.Second

	consoleLog = "console.log"
)

// sandbox is what the phases of Main share.
type sandbox struct {
	child    *control.Child
	log      *slog.Logger
	times    *timeline
	guestLog *guestLog
	machine  *machine
	c        *container
	server   *control.Server
	vmEnded  chan vmEnd // has room for one
}

type vmEnd struct {
	exit vmm.Exit
	err  error
}

// Main is the sandbox process from its configuration to its exit status,
// which it returns.
func Main(child *control.Child, log *slog.Logger) int {
	gomonitor.Quiet()
	early := startVM()
	signals := catchSignals()
	s := &sandbox{
		child: child, log: limitLog(log).With("container", child.Launch.ID),
		times: newTimeline(child.Launch.Spawned), vmEnded: make(chan vmEnd, 1),
	}
	// The creator died before it had recorded the container: nobody would
	// ever end us.
	child.Orphaned(func() { os.Exit(failed) })
	if child.Launch.MakeTemplate != "" {
		return s.makerMain(early)
	}
	prof, err := startProfile(child.Launch.Profile, child.Launch.ID)
	if err != nil {
		_ = child.Ready(control.Ready{Error: asError(err)})
		return 1
	}
	if err := s.create(early); err != nil {
		_ = child.Ready(control.Ready{Error: asError(err)}) // it is gone if that fails
		return 1
	}
	if err := child.Ready(control.Ready{}); err != nil {
		return 1
	}
	go s.c.routineSignals(signals)
	go s.routineSettled()
	code := s.wait()
	s.closeConsole()
	s.writeTimeline()
	if err := prof.stop(s.machine.vm.Stats()); err != nil {
		s.log.Warn("profile", "err", err)
	}
	s.c.finish(code)
	s.server.Drain(answerGrace)
	return code
}

// routineSettled writes down where the time went and tidies up when the container
// has been running for a moment, and tidies up once more for slow hosts. The moment
// is longer where the guest took long until it was created: it will be as slow with what its program does first.
func (s *sandbox) routineSettled() {
	moment := min(max(settled, 2*s.times.sinceSpawn()), settledSlow)
	select {
	case <-s.c.started:
	case <-time.After(moment): // created and not started: it may stay so for long
		gomonitor.Release()
		s.writeTimeline()
		trim()
		<-s.c.started
	}
	time.Sleep(moment)
	gomonitor.Release()
	s.writeTimeline()
	trim()
	time.Sleep(settledLate - settled)
	trim()
	s.logMemory()
}

// create brings up VM, agent and container.
func (s *sandbox) create(early *earlyVM) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	plan, err := planOf(&s.child.Launch)
	if err != nil {
		return err
	}
	s.c = newContainer(s.child.Launch.ID, plan, s.times, s.log)
	if err := s.listen(); err != nil {
		return err
	}
	if s.machine, err = newMachine(early, &s.child.Launch, plan, s.guestLog, s.log); err != nil {
		return err
	}
	s.c.vm = s.machine.vm
	s.c.exports.files = s.machine.files
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	ctx, lost := s.runVM(ctx)
	defer lost(nil)
	err = s.meetAgent(ctx)
	if err == nil {
		err = s.c.create(ctx, s.machine.link.streams(), newStdio(s.child.Launch.Terminal, os.Stdin, os.Stdout, os.Stderr))
	}
	marks := s.machine.vm.Marks()
	s.times.at(control.MarkVMCreated, marks.VMCreated)
	s.times.at(control.MarkKernelEntry, marks.KernelEntry)
	s.times.at(control.MarkRestored, marks.Restored)
	return s.explain(ctx, err)
}

var errVMEnded = errors.New("the VM ended")

// runVM runs the machine. A VM that ends takes the calls with it that are made with the context
// returned, whose cancel function is the caller's to call.
func (s *sandbox) runVM(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, lost := context.WithCancelCause(ctx)
	go func() {
		exit, err := s.machine.vm.Run(context.Background())
		lost(errVMEnded)
		s.vmEnded <- vmEnd{exit, err}
	}()
	return ctx, lost
}

// listen opens what lies in the state directory. The umask is cleared
// afterwards: modes of the container's files come from the guest.
func (s *sandbox) listen() error {
	l, err := control.Listen(s.child.StateDir)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	fd, err := unix.Openat(int(s.child.StateDir.Fd()), consoleLog, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("open "+consoleLog, err)
	}
	unix.Umask(0)
	var log *slog.Logger
	if s.child.Launch.Debug {
		log = s.log
	}
	s.guestLog = newGuestLog(os.NewFile(uintptr(fd), consoleLog), log)
	s.server = control.Serve(l, s.c, s.log)
	return nil
}

// meetAgent waits for the agent and prepares the guest.
func (s *sandbox) meetAgent(ctx context.Context) error {
	var conn io.ReadWriteCloser
	conn, err := s.machine.link.control(ctx)
	if err != nil {
		return err
	}
	s.c.client = wire.NewClient(conn, s.c.onEvent)
	hello, err := s.c.client.Hello(ctx)
	if err != nil {
		return fmt.Errorf("guest agent: %w", err)
	}
	s.times.agentHello(s.machine.vm.Stats().Exits)
	s.log.Debug("agent is up", "kernel", clip(hello.Kernel), "uptime", time.Duration(hello.UptimeNS))
	if err := s.c.configure(ctx); err != nil {
		return err
	}
	return s.c.grow(ctx, s.machine.growth, growTime)
}

// explain says what is behind an error of create: often the VM has ended.
func (s *sandbox) explain(ctx context.Context, err error) error {
	var we *wire.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &we):
		return guestError(err)
	case errors.Is(context.Cause(ctx), errVMEnded):
		end := <-s.vmEnded
		s.closeConsole()
		return fmt.Errorf("the guest ended before the container was created: %s%s", end, s.lastWords())
	case ctx.Err() != nil:
		return fmt.Errorf("the guest did not get ready within %v%s", createTimeout, s.lastWords())
	default:
		return err
	}
}

// closeConsole brings what the guest has printed to console.log. A second call
// does nothing.
func (s *sandbox) closeConsole() {
	if err := s.machine.console.Close(); err != nil {
		s.log.Warn("console log", "err", err)
	}
	s.guestLog.finish()
}

func (s *sandbox) lastWords() string {
	if text := s.guestLog.lastLines(4); text != "" {
		return "; its last words: " + text
	}
	return ""
}

// String is for error messages.
func (e vmEnd) String() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case e.exit.Detail != "":
		return string(e.exit.Reason) + ": " + e.exit.Detail
	default:
		return string(e.exit.Reason)
	}
}

// wait returns the exit status, when all of the container's output and files
// are where they belong.
func (s *sandbox) wait() int {
	select {
	case x := <-s.c.ended:
		return s.settle(x)
	case code := <-s.c.aborted:
		s.machine.vm.Stop()
		return code
	case end := <-s.vmEnded:
		// The exit may have been on its way.
		select {
		case x := <-s.c.ended:
			s.vmEnded <- end
			return s.settle(x)
		case code := <-s.c.aborted:
			return code
		default:
		}
		s.closeConsole()
		s.log.Error("the VM ended under its container: " + end.String() + s.lastWords())
		return failed
	case <-s.c.client.Done():
		select {
		case x := <-s.c.ended:
			return s.settle(x)
		case <-time.After(time.Second): // a VM that has ended says so first
		case end := <-s.vmEnded:
			s.vmEnded <- end
			return s.wait()
		}
		s.log.Error("the guest's agent is gone: " + s.c.client.Err().Error() + s.lastWords())
		s.machine.vm.Stop()
		return failed
	}
}

// settle drains output and files after the container's process has ended.
func (s *sandbox) settle(x *wire.ContainerExited) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.c.io.drain(ctx, x.Stdout, x.Stderr)
		if err := s.c.flush(); err != nil {
			s.log.Warn("the guest may not have written back all files", "err", err)
		}
	}()
	select {
	case <-done:
	case <-s.c.aborted:
	case end := <-s.vmEnded:
		// Its own end, after the flush, or not.
		select {
		case <-done:
		case <-time.After(time.Second):
			s.log.Error("the VM ended before the container's files were written back: " + end.String())
		}
	}
	s.machine.vm.Stop()
	return status(x)
}

// status is the exit status as this process can report it.
func status(x *wire.ContainerExited) int { return x.Status & 0xff }

func (s *sandbox) writeTimeline() {
	stats := s.machine.vm.Stats()
	if err := s.times.write(s.child.StateDir, stats.Exits, stats.Assists); err != nil {
		s.log.Debug("timeline", "err", err)
	}
	s.log.Debug("timeline so far", "exits", stats.Exits, "assists", stats.Assists)
}

// asError keeps what an error says and gives it a kind.
func asError(err error) *control.Error {
	var ce *control.Error
	if errors.As(err, &ce) {
		return ce
	}
	return &control.Error{Kind: control.KindInternal, Message: err.Error()}
}
