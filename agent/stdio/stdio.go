package stdio

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// bufferSize is how much one read moves. A pipe holds 64 KiB; pages that a
// short read does not reach are never touched.
const bufferSize = 64 << 10

// Config says what the descriptors of a process are.
type Config struct {
	Opener wire.Opener
	IO     wire.IO
	// PTY is the process's terminal; nil without one. The Stdio owns it.
	PTY *PTY
}

// Stdio is the three descriptors of one process.
type Stdio struct {
	// Child has the process's ends of 0, 1 and 2: duplicate them in the
	// child, then call CloseChild. Two may be the same descriptor.
	Child [3]int

	pty    *PTY // nil without a terminal
	in     *input
	out    *output // nil: discarded
	errs   *output // nil: discarded, or a terminal
	wg     sync.WaitGroup
	closed sync.Once
}

// Open opens the streams and makes the process's ends.
func Open(cfg Config) (_ *Stdio, err error) {
	s := &Stdio{Child: [3]int{-1, -1, -1}, pty: cfg.PTY}
	defer func() {
		if err != nil {
			s.CloseChild()
			s.Close()
		}
	}()
	if s.pty != nil {
		return s, s.openTerminal(cfg)
	}
	if s.in, s.Child[0], err = newInput(cfg.Opener, cfg.IO.Stdin); err != nil {
		return nil, err
	}
	if s.out, s.Child[1], err = newOutput(cfg.Opener, cfg.IO.Stdout); err != nil {
		return nil, err
	}
	if s.errs, s.Child[2], err = newOutput(cfg.Opener, cfg.IO.Stderr); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Stdio) openTerminal(cfg Config) error {
	s.Child = [3]int{s.pty.slave, s.pty.slave, s.pty.slave}
	if cfg.IO.Stdin != 0 {
		stream, err := cfg.Opener.Open(cfg.IO.Stdin)
		if err != nil {
			return err
		}
		s.in = &input{stream: stream, sink: s.pty.Master, keepSink: true}
	}
	if cfg.IO.Stdout != 0 {
		stream, err := cfg.Opener.Open(cfg.IO.Stdout)
		if err != nil {
			return err
		}
		if s.out, err = outputFrom(s.pty.Master, stream); err != nil {
			_ = stream.Close()
			return err
		}
		s.out.terminal = true
	}
	return nil
}

// CloseChild closes the process's ends, of which the process has copies now.
func (s *Stdio) CloseChild() {
	for i, fd := range s.Child {
		if fd >= 0 && (i == 0 || fd != s.Child[0]) {
			_ = unix.Close(fd)
		}
	}
	s.Child = [3]int{-1, -1, -1}
	if s.pty != nil {
		s.pty.slave = -1
	}
}

// Start begins to copy.
func (s *Stdio) Start() {
	if s.in != nil {
		s.wg.Go(s.in.RoutineInput)
	}
	for _, o := range []*output{s.out, s.errs} {
		if o != nil {
			s.wg.Go(o.RoutineOutput)
		}
	}
}

// Drain waits until the host has what the process had written when Drain was
// called, or limit has passed. It returns how many bytes of each stream that
// is. It also ends stdin, which nobody reads any more.
func (s *Stdio) Drain(limit time.Duration) (stdout, stderr uint64) {
	if s.in != nil {
		s.in.close()
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	if s.out != nil {
		stdout = s.out.drain(timer.C)
	}
	if s.errs != nil {
		stderr = s.errs.drain(timer.C)
	}
	return stdout, stderr
}

// CloseStdin gives the process EOF. A terminal hangs up: the host asks for that
// when its own has gone. The end of the stream alone leaves a terminal be.
func (s *Stdio) CloseStdin() {
	switch {
	case s.pty != nil:
		_ = s.pty.Master.Close()
	case s.in != nil:
		s.in.close()
	}
}

// Resize sets the size of the terminal's window.
func (s *Stdio) Resize(width, height uint16) error {
	if s.pty == nil {
		return unix.ENOTTY
	}
	return s.pty.Resize(width, height)
}

// Close ends the copying and frees everything. Output that is not yet drained
// is lost.
func (s *Stdio) Close() {
	s.closed.Do(func() {
		if s.in != nil {
			s.in.close()
		}
		for _, o := range []*output{s.out, s.errs} {
			if o != nil {
				o.close()
			}
		}
		if s.pty != nil {
			_ = s.pty.Master.Close()
		}
		s.wg.Wait()
	})
}

// devNull opens /dev/null of the guest.
func devNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open /dev/null", err)
	}
	return fd, nil
}

// open opens stream id, and a halfPipe for it; theirs is the process's
// descriptor. id 0 is /dev/null and no stream.
func open(o wire.Opener, id uint64, end int) (stream wire.Stream, ours *os.File, theirs int, err error) {
	if id == 0 {
		theirs, err = devNull()
		return nil, nil, theirs, err
	}
	if stream, err = o.Open(id); err != nil {
		return nil, nil, -1, err
	}
	if ours, theirs, err = halfPipe(end); err != nil {
		_ = stream.Close()
		return nil, nil, -1, err
	}
	return stream, ours, theirs, nil
}

// halfPipe makes a pipe of which this side, end 0 (reads) or 1 (writes), waits
// in Go's poller, and the process's end blocks as programs expect.
func halfPipe(end int) (ours *os.File, theirs int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, os.NewSyscallError("pipe2", err)
	}
	// F_SETFL looks at no access mode, so there is nothing to read first.
	if _, err := unix.FcntlInt(uintptr(p[end]), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		_ = unix.Close(p[0])
		_ = unix.Close(p[1])
		return nil, -1, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[end]), "pipe"), p[1-end], nil
}

// Wait returns when the streams have ended.
func (s *Stdio) Wait() { s.wg.Wait() }
