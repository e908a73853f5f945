// Package spool carries a guest's console output to a host writer that may be
// slow, stuck or gone. It holds a bounded number of bytes.
//
// While the host writer makes progress a full spool holds the guest back; when
// it has made none for Patience, output is dropped, and a mark says how much
// when there is room again. So a log of a healthy host is whole, and a guest on
// a sick one goes on.
//
//	s := spool.New(logFile, 64<<10)
//	defer s.Close()
//	s.Write(bytesOfTheGuest)
//
// Write may be called by several goroutines. One goroutine of the spool writes
// to the host writer.
package spool

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// Patience is how long Write waits for a host writer that does not move: once,
	// as later writes do not wait until it has moved. A guest's CPU may spin that
	// long; much less and a busy host would lose output for no other reason.
	Patience = 200 * time.Millisecond
	// CloseWait is how long Close waits for the rest to be written.
	CloseWait = 500 * time.Millisecond

	minSize = 512 // a mark must fit
)

// Spool is an io.Writer in front of another one.
type Spool struct {
	out       io.Writer
	patience  time.Duration // Patience, but in tests
	closeWait time.Duration // CloseWait, but in tests
	done      chan struct{} // closed when the writing goroutine has ended

	mu      sync.Mutex
	buf     []byte        // a ring; protected by mu except what routineOut writes
	start   int           // of the bytes held; protected by mu
	n       int           // bytes held; protected by mu
	dropped uint64        // bytes lost since the last mark; protected by mu
	stuck   bool          // no progress since a Write lost its patience; protected by mu
	closed  bool          // protected by mu
	data    chan struct{} // capacity 1: there is something to write
	space   chan struct{} // capacity 1: something was written
}

// New makes a spool of at least size bytes. A nil out discards.
func New(out io.Writer, size int) *Spool {
	return newSpool(out, size, Patience, CloseWait)
}

func newSpool(out io.Writer, size int, patience, closeWait time.Duration) *Spool {
	if out == nil {
		out = io.Discard
	}
	s := &Spool{
		out: out, patience: patience, closeWait: closeWait,
		buf:  make([]byte, max(size, minSize)),
		done: make(chan struct{}), data: make(chan struct{}, 1), space: make(chan struct{}, 1),
	}
	go s.routineOut()
	return s
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Write takes p, in whole or (after Patience, or when closed) in part, and
// always reports success: a guest cannot do anything about a host's log.
func (s *Spool) Write(p []byte) (int, error) {
	rest := p
	var deadline time.Time
	for {
		rest = rest[s.put(rest):]
		if len(rest) == 0 {
			return len(p), nil
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(s.patience)
		}
		moved, giveUp := s.wait(time.Until(deadline))
		if giveUp {
			break
		}
		if moved {
			deadline = time.Now().Add(s.patience)
		}
	}
	s.mu.Lock()
	s.dropped += uint64(len(rest))
	s.mu.Unlock()
	return len(p), nil
}

// put copies what fits of p, after the mark of what was lost before.
func (s *Spool) put(p []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	if s.dropped > 0 {
		m := mark(s.dropped)
		if len(s.buf)-s.n < len(m) {
			return 0
		}
		s.copyIn(m)
		s.dropped = 0
	}
	k := s.copyIn(p)
	if s.n > 0 {
		signal(s.data)
	}
	return k
}

// copyIn appends what fits of p. Mu is held.
func (s *Spool) copyIn(p []byte) int {
	p = p[:min(len(p), len(s.buf)-s.n)]
	at := (s.start + s.n) % len(s.buf)
	k := copy(s.buf[at:], p)
	copy(s.buf, p[k:])
	s.n += len(p)
	return len(p)
}

// wait blocks until the host writer has moved or left is over.
func (s *Spool) wait(left time.Duration) (moved, giveUp bool) {
	s.mu.Lock()
	hopeless := s.closed || s.stuck
	s.mu.Unlock()
	if hopeless {
		return false, true
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-s.space:
		return true, false
	case <-s.done:
		return false, true
	case <-timer.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stuck = s.n == len(s.buf) // it may have moved just now
		return false, s.stuck
	}
}

func mark(n uint64) []byte {
	return fmt.Appendf(nil, "\n[lucid: %d bytes of guest output dropped]\n", n)
}

// routineOut writes to the host until Close and the ring is empty.
func (s *Spool) routineOut() {
	defer close(s.done)
	for {
		p, closed := s.held()
		if len(p) == 0 {
			if closed {
				return
			}
			<-s.data
			continue
		}
		// Without the lock: writers only touch the free part of the ring. An
		// error loses these bytes; the next ones may fare better.
		_, _ = s.out.Write(p)
		s.mu.Lock()
		s.start = (s.start + len(p)) % len(s.buf)
		s.n -= len(p)
		s.stuck = false
		s.mu.Unlock()
		signal(s.space)
	}
}

// held returns the contiguous bytes to write next. An empty ring with losses
// yields their mark.
func (s *Spool) held() (p []byte, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 && s.dropped > 0 {
		s.copyIn(mark(s.dropped))
		s.dropped = 0
	}
	return s.buf[s.start:min(s.start+s.n, len(s.buf))], s.closed
}

// Close writes what is held and waits for it, at most CloseWait. Later writes
// are lost. It does not close the host writer, which may still be in a Write
// when Close gave up.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	signal(s.data)
	timer := time.NewTimer(s.closeWait)
	defer timer.Stop()
	select {
	case <-s.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("guest output: %w", errStuck)
	}
}

var errStuck = errors.New("host writer is stuck")
