package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/assets"
	"github.com/lucid-containers/lucid/internal/ownmem"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// lucidProgram holds the VMs and stands for execs.
const lucidProgram = "lucid"

// answerGrace lets the answer to Shutdown out: ttrpc takes a connection for idle, and closes it, before its last answer is
// written.
const answerGrace = 200 * time.Millisecond

// newRuntime is the containers of a namespace. log may be nil.
func newRuntime(c *call, log *slog.Logger) (*runtime.Runtime, error) {
	lucid, err := assets.Program(lucidProgram)
	if err != nil {
		return nil, err
	}
	return runtime.New(runtime.Config{
		Root:       c.root(),
		Sandbox:    []string{lucid, runtime.SandboxCommand},
		StandIn:    []string{lucid, runtime.StandInCommand},
		SandboxEnv: runtime.SandboxEnv(),
		Templates:  runtime.DefaultTemplates(),
		Log:        log,
	})
}

// serve is the server process. It ends when containerd says Shutdown.
func serve(c *call) error {
	// Who reads the container's output, or our log, may go away.
	signal.Ignore(unix.SIGPIPE)
	log, err := openLog(c)
	if err != nil {
		return err
	}
	rt, err := newRuntime(c, log)
	if err != nil {
		return err
	}
	file := os.NewFile(listenFD, "listener")
	l, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("this action is for the shim's own use: %w", err)
	}
	_ = file.Close()
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()), ttrpc.WithUnaryServerInterceptor(trimAfterCalls()))
	if err != nil {
		return err
	}
	events := newPublisher(c.ttrpc, c.namespace, log)
	ended := make(chan struct{})
	s := newService(c, rt, events, log, sync.OnceFunc(func() { close(ended) }))
	register(server, s)
	registerSandbox(server, s)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(context.Background(), l) }()
	go s.routineSignals()
	select {
	case err := <-failed:
		log.Error("server", "err", err)
		return err
	case <-ended:
	}
	time.Sleep(answerGrace)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		log.Debug("server", "err", err)
	}
	events.close(lastEvents)
	if err := os.Remove(c.socketPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("socket", "err", err)
	}
	return nil
}

// quiet is how long no call may have begun or ended before memory is given back: a start is several calls.
const quiet = 2 * time.Second

// trimAfterCalls gives back what calls have left in memory. Most of the time a shim has none to answer.
func trimAfterCalls() ttrpc.UnaryServerInterceptor {
	timer := time.AfterFunc(quiet, ownmem.Trim)
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, call ttrpc.Method) (any, error) {
		timer.Reset(quiet)
		defer timer.Reset(quiet)
		return call(ctx, unmarshal)
	}
}

// routineSignals lets a signal end the process only while there is no
// container: it would take the container with it.
func (s *service) routineSignals() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	for range signals {
		s.exitIfIdle()
	}
}

// shimLog writes to the fifo in the bundle. It never blocks, and the reader,
// containerd, may go away and come back: lines are lost meanwhile.
type shimLog struct{ fd int }

func (l shimLog) Write(p []byte) (int, error) {
	_, _ = unix.Write(l.fd, p)
	return len(p), nil
}

func openLog(c *call) (*slog.Logger, error) {
	level := slog.LevelInfo
	if c.debug {
		level = slog.LevelDebug
	}
	// Both ends, so that there is no EPIPE and no waiting for a reader.
	fd, err := unix.Open(logFile, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) { // cri-o makes none
		return slog.New(slog.DiscardHandler), nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: logFile, Err: err}
	}
	return slog.New(slog.NewTextHandler(shimLog{fd}, &slog.HandlerOptions{Level: level})).With("runtime", runtimeName), nil
}
