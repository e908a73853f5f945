package stdio

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// output copies what the process writes to a stream.
type output struct {
	source   *os.File
	raw      syscall.RawConn // of source
	stream   wire.Stream
	terminal bool

	ended    chan struct{} // closed when RoutineOutput returns
	progress chan struct{} // one token after each write

	mu     sync.Mutex
	sent   uint64 // protected by mu; bytes that the stream took
	flying int    // protected by mu; bytes read and not yet sent
	over   bool   // protected by mu; the source has ended, or nobody listens
}

// newOutput opens stream id, and a pipe that feeds it. id 0 is /dev/null.
func newOutput(o wire.Opener, id uint64) (*output, int, error) {
	stream, r, fd, err := open(o, id, 0)
	if err != nil || stream == nil {
		return nil, fd, err
	}
	out, err := outputFrom(r, stream)
	if err != nil {
		_ = unix.Close(fd)
		_ = r.Close()
		_ = stream.Close()
		return nil, -1, err
	}
	return out, fd, nil
}

func outputFrom(source *os.File, stream wire.Stream) (*output, error) {
	raw, err := source.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &output{
		source: source, raw: raw, stream: stream,
		ended: make(chan struct{}), progress: make(chan struct{}, 1),
	}, nil
}

// RoutineOutput copies until the last writer has closed the pipe, or the
// terminal, or until the host has closed the stream. In the second case the
// pipe is closed too, so that the process gets EPIPE.
func (o *output) RoutineOutput() {
	defer close(o.ended)
	buf := make([]byte, bufferSize)
	for {
		n := o.read(buf)
		if n == 0 {
			break
		}
		_, err := o.stream.Write(buf[:n])
		o.mu.Lock()
		o.flying = 0
		o.sent += uint64(n)
		o.mu.Unlock()
		select {
		case o.progress <- struct{}{}:
		default:
		}
		if err != nil {
			break
		}
	}
	o.mu.Lock()
	o.over = true
	o.mu.Unlock()
	if !o.terminal {
		_ = o.source.Close()
	}
	_ = o.stream.CloseWrite()
	_ = o.stream.Close()
}

// read takes what is there, and waits if that is nothing. 0 means the end; a
// terminal says it with EIO.
func (o *output) read(buf []byte) int {
	var n int
	err := o.raw.Read(func(fd uintptr) bool {
		// The lock makes "read and not yet sent" one step for drain. The
		// descriptor does not block.
		o.mu.Lock()
		defer o.mu.Unlock()
		var err error
		for {
			n, err = unix.Read(int(fd), buf)
			if err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			return false
		}
		if err != nil || n < 0 {
			n = 0
		}
		o.flying = n
		return true
	})
	if err != nil {
		return 0
	}
	return n
}

// drain waits until what is in the pipe now has been sent, and returns the
// count of bytes up to there.
func (o *output) drain(limit <-chan time.Time) uint64 {
	want := o.written()
	for {
		o.mu.Lock()
		sent, over := o.sent, o.over
		o.mu.Unlock()
		// A terminal's output passes through a work queue of the kernel
		// before FIONREAD counts it: only its end is certain.
		if over || sent >= want && !o.terminal {
			return max(want, sent)
		}
		select {
		case <-o.progress:
		case <-o.ended:
		case <-limit:
			return o.written()
		}
	}
}

// written counts the bytes that the process has written so far.
func (o *output) written() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.sent + uint64(o.flying)
	_ = o.raw.Control(func(fd uintptr) {
		if pending, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil && pending > 0 {
			n += uint64(pending)
		}
	})
	return n
}

// close ends the copying, whatever is left.
func (o *output) close() {
	if !o.terminal {
		_ = o.source.Close()
	}
	_ = o.stream.Close()
}
