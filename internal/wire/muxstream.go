package wire

import (
	"io"
	"sync"
)

// muxStream is one stream of a Mux.
//
//	expected ──muxOpen──▶ open ──EOF sent and EOF received──▶ gone
//	    │                   │
//	    └──── Close, reset, end of the channel ────────────▶ gone
type muxStream struct {
	mux *Mux
	id  uint64

	expected chan Stream // host only: takes the stream when it opens

	readMu  sync.Mutex // one reader at a time
	writeMu sync.Mutex // one writer at a time, so that writes do not mix

	mu      sync.Mutex // protects what follows
	changed sync.Cond  // broadcast on each change below
	open    bool
	buf     []byte // received and not read; at most muxWindow
	taken   uint32 // read since the last grant
	credit  uint32 // bytes we may send
	recvEOF bool
	sentEOF bool
	err     error // set once: reset, closed or the channel's end
}

func newMuxStream(m *Mux, id uint64, expected chan Stream) *muxStream {
	s := &muxStream{mux: m, id: id, expected: expected, open: expected == nil, credit: muxWindow}
	s.changed.L = &s.mu
	return s
}

// Read takes what has arrived, and lets the peer send more when half of the
// window has been read.
func (s *muxStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.readMu.Lock()
	defer s.readMu.Unlock()
	s.mu.Lock()
	for len(s.buf) == 0 && !s.recvEOF && s.err == nil {
		s.changed.Wait()
	}
	if len(s.buf) == 0 {
		defer s.mu.Unlock()
		if s.recvEOF {
			return 0, io.EOF
		}
		return 0, s.err
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	if len(s.buf) == 0 {
		s.buf = nil
	}
	s.taken += uint32(n)
	grant := uint32(0)
	if s.taken >= muxWindow/2 && !s.recvEOF && s.err == nil {
		grant, s.taken = s.taken, 0
	}
	s.mu.Unlock()
	if grant > 0 {
		// A write that fails is the end of the channel, which the next
		// Read reports; these bytes are good.
		_ = s.mux.send(s.id, muxCredit, nil, grant)
	}
	return n, nil
}

// Write sends p as fast as the peer grants it.
func (s *muxStream) Write(p []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	sent := 0
	for sent < len(p) {
		n, err := s.reserve(len(p) - sent)
		if err != nil {
			return sent, err
		}
		if err := s.mux.send(s.id, muxData, p[sent:sent+n], 0); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// reserve waits for credit and takes as much of it as one frame can use.
func (s *muxStream) reserve(want int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (s.credit == 0 || !s.open) && s.err == nil && !s.sentEOF {
		s.changed.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	if s.sentEOF {
		return 0, errStreamClosed
	}
	n := min(want, int(s.credit), muxMaxData)
	s.credit -= uint32(n)
	return n, nil
}

// CloseWrite says that no more data come from this side.
func (s *muxStream) CloseWrite() error {
	s.mu.Lock()
	if s.sentEOF {
		s.mu.Unlock()
		return nil
	}
	s.sentEOF = true
	s.changed.Broadcast() // a Write that waits for credit gives up
	s.mu.Unlock()

	s.writeMu.Lock() // after the frame of a Write under way
	defer s.writeMu.Unlock()
	s.mu.Lock()
	err, over := s.err, s.recvEOF
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if over {
		s.mux.remove(s)
	}
	return s.mux.send(s.id, muxEOF, nil, 0)
}

// Close ends the stream in both directions. What has arrived and was not read
// is lost.
func (s *muxStream) Close() error {
	s.mu.Lock()
	over := s.err != nil
	whole := s.sentEOF && s.recvEOF
	if !over {
		s.err = errStreamClosed
	}
	s.buf = nil
	s.changed.Broadcast()
	s.mu.Unlock()
	s.mux.remove(s)
	if !over && !whole {
		s.mux.reset(s.id)
	}
	return nil
}

// fail ends the stream from outside. What has arrived can still be read.
func (s *muxStream) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.changed.Broadcast()
	s.mu.Unlock()
}

func (s *muxStream) takeOpen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		return protocolError("stream opened twice")
	}
	s.open = true
	s.changed.Broadcast()
	s.expected <- s // has room: a stream opens once
	return nil
}

func (s *muxStream) takeData(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open || s.recvEOF {
		return protocolError("data on a stream that is not open")
	}
	// taken counts as held: it has not been granted again.
	if len(s.buf)+int(s.taken)+len(p) > muxWindow {
		return protocolError("data beyond the credit")
	}
	if s.err != nil {
		return nil
	}
	s.buf = append(s.buf, p...)
	s.changed.Broadcast()
	return nil
}

func (s *muxStream) takeCredit(n uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > muxWindow || s.credit+n > muxWindow {
		return protocolError("credit beyond the window")
	}
	s.credit += n
	s.changed.Broadcast()
	return nil
}

func (s *muxStream) takeEOF() {
	s.mu.Lock()
	s.recvEOF = true
	over := s.sentEOF
	s.changed.Broadcast()
	s.mu.Unlock()
	if over {
		s.mux.remove(s)
	}
}
