package sandbox

// Bytes between the container's fds 0 to 2, which this process inherited, and
// streams of the guest:
//
//	fd 0 → routineIn → stream  (its end is a half-close; the guest's credit holds us back)
//	stream → routineOut → fd 1, 2  (a full pipe holds the guest back; a closed one closes the stream)
//
// With a terminal fds 0 to 2 are one pty: fd 0 is read for input and fd 1
// takes the output.

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// copySize is the buffer of one direction: what a pipe holds by default is
// 64 KiB; half of that keeps reader and writer both busy.
const copySize = 32 << 10

// stdio is the container's three files.
type stdio struct {
	terminal bool
	in       *end
	out      [2]*end // stdout, stderr
	onHangup func()  // the host's terminal has gone; set before start
}

// end is one of them. A nil end is /dev/null.
type end struct {
	file     *os.File
	expected *wire.Expected
	stream   wire.Stream

	mu     sync.Mutex
	moved  *sync.Cond // copied or done changed
	copied uint64     // bytes written to file; protected by mu
	done   bool       // nothing more will be; protected by mu
}

func newEnd(f *os.File) *end {
	if isNull(f) {
		return nil
	}
	e := &end{file: f}
	e.moved = sync.NewCond(&e.mu)
	return e
}

// isNull says whether a file is /dev/null, which needs no stream.
func isNull(f *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// newStdio wraps the container's files, which are this process's own.
func newStdio(terminal bool, stdin, stdout, stderr *os.File) *stdio {
	s := &stdio{terminal: terminal, in: newEnd(stdin)}
	s.out[0] = newEnd(stdout)
	if !terminal {
		s.out[1] = newEnd(stderr)
	}
	return s
}

// adopt duplicates the files that came with the request.
func (s *stdio) adopt(null [3]bool, files []*os.File) error {
	ends := [3]**end{&s.in, &s.out[0], &s.out[1]}
	for i, isNull := range null {
		if isNull {
			continue
		}
		if len(files) == 0 || i == 2 && s.terminal {
			s.close()
			return badRequest("the files do not fit the request")
		}
		fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			// A read or write that blocks could not be called off.
			err = unix.SetNonblock(fd, true)
		}
		if err != nil {
			s.close()
			return os.NewSyscallError("dup", err)
		}
		*ends[i] = newEnd(os.NewFile(uintptr(fd), "stdio"))
		files = files[1:]
	}
	return nil
}

func (s *stdio) ends() []*end { return []*end{s.in, s.out[0], s.out[1]} }

// expect announces the streams and names them.
func (s *stdio) expect(streams wire.Expecter) (wire.IO, error) {
	var ids [3]uint64
	for i, e := range s.ends() {
		if e == nil {
			continue
		}
		ids[i] = wire.NewStreamID()
		x, err := streams.Expect(ids[i])
		if err != nil {
			s.cancel()
			return wire.IO{}, err
		}
		e.expected = x
	}
	return wire.IO{Stdin: ids[0], Stdout: ids[1], Stderr: ids[2]}, nil
}

func (s *stdio) cancel() {
	for _, e := range s.ends() {
		if e != nil && e.expected != nil {
			e.expected.Cancel()
		}
	}
}

// connect waits for the agent to open the streams.
func (s *stdio) connect(ctx context.Context) error {
	for _, e := range s.ends() {
		if e == nil {
			continue
		}
		stream, err := e.expected.Wait(ctx)
		if err != nil {
			s.cancel()
			return err
		}
		e.stream = stream
	}
	return nil
}

// start begins to copy. Nothing of stdin is read for a container that is
// never started.
func (s *stdio) start() {
	if s.in != nil {
		go s.routineIn()
	}
	for _, e := range s.out {
		if e != nil {
			go e.routineOut()
		}
	}
}

// routineIn copies fd 0 to the guest. It ends with the process: a read from a
// pipe or terminal cannot be called off.
func (s *stdio) routineIn() {
	e, buf := s.in, make([]byte, copySize)
	for {
		n, err := e.file.Read(buf)
		if n > 0 {
			if _, werr := e.stream.Write(buf[:n]); werr != nil {
				return // the container does not read any more
			}
		}
		switch {
		case err == nil:
		case s.terminal:
			// A raw terminal has no end: nobody holds the other side.
			s.onHangup()
			return
		default:
			_ = e.stream.CloseWrite()
			return
		}
	}
}

// routineOut copies one output of the guest.
func (e *end) routineOut() {
	buf := make([]byte, copySize)
	for {
		n, err := e.stream.Read(buf)
		if n > 0 {
			if _, werr := e.file.Write(buf[:n]); werr != nil {
				// Nobody reads: the container's next write is to fail.
				_ = e.stream.Close()
				err = werr
			}
			e.mu.Lock()
			e.copied += uint64(n)
			e.mu.Unlock()
		}
		e.mu.Lock()
		e.done = e.done || err != nil
		e.moved.Broadcast()
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// drain waits until what the container wrote before it ended has been passed
// on, or ctx ends. A stream that another process in the guest holds open does
// not delay it.
func (s *stdio) drain(ctx context.Context, stdout, stderr uint64) {
	for i, want := range []uint64{stdout, stderr} {
		if e := s.out[i]; e != nil {
			e.wait(ctx, want)
		}
	}
}

func (e *end) wait(ctx context.Context, want uint64) {
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		e.done = true
		e.moved.Broadcast()
		e.mu.Unlock()
	})
	defer stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.copied < want && !e.done {
		e.moved.Wait()
	}
}

// size is the terminal's window size.
func (s *stdio) size() (width, height uint16) {
	if s.in == nil {
		return 0, 0
	}
	ws, err := unix.IoctlGetWinsize(int(s.in.file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return ws.Col, ws.Row
}

// close gives the files and streams up. It is for files that were passed to this
// process: those that are its own end with it.
func (s *stdio) close() {
	for _, e := range s.ends() {
		if e == nil {
			continue
		}
		_ = e.file.Close()
		if e.stream != nil {
			_ = e.stream.Close()
		}
	}
}
