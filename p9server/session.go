package p9server

import (
	"sync"
	"sync/atomic"

	"github.com/lucid-containers/lucid/p9server/p9"
)

// Session is one client's connection: its fids, tags and locks.
type Session struct {
	srv   *Server
	msize atomic.Uint32 // 0 until Tversion

	fids       fidTable
	tags       tagTable
	locks      lockTable
	xattrBytes atomic.Int64

	closing   chan struct{}
	closeOnce sync.Once
}

// NewSession starts a session. Close it when its transport is gone.
func (s *Server) NewSession() *Session {
	sess := &Session{srv: s, closing: make(chan struct{})}
	sess.fids.m = make(map[uint32]*fid)
	sess.tags.m = make(map[uint16]*Request)
	sess.locks.init(s.limits.Locks)
	s.mu.Lock()
	if !s.closed {
		s.sessions[sess] = struct{}{}
	}
	s.mu.Unlock()
	return sess
}

// Close drops all fids. Requests in flight keep what they use until they
// end; a Tflush that waits for one returns.
func (s *Session) Close() {
	s.srv.mu.Lock()
	delete(s.srv.sessions, s)
	s.srv.mu.Unlock()
	s.shut()
}

func (s *Session) shut() {
	s.closeOnce.Do(func() { close(s.closing) })
	s.dropFids(true)
}

func (s *Session) dropFids(closed bool) {
	for _, f := range s.fids.reset(closed) {
		f.unref(s)
	}
}

// dropExport lets go of every fid inside e.
func (s *Session) dropExport(e *export) {
	for _, f := range s.fids.evict(func(f *fid) bool { return f.exp == e }) {
		f.unref(s)
	}
}

// Handle serves one request: req is the T-message, reply the room for the
// R-message. It returns the length of the R-message, or 0 if there is nothing
// to send because the request has no tag or the reply no room.
func (s *Session) Handle(req, reply [][]byte) int {
	r := s.Accept(req)
	n := r.Serve(reply)
	r.Done()
	return n
}

// version answers Tversion: everything of the session before is gone.
func (s *Session) version(r *Request) error {
	var m p9.Tversion
	if err := m.Decode(r.body); err != nil {
		return err
	}
	s.dropFids(false)
	msize := min(m.Msize, s.srv.limits.Msize)
	version := p9.Version
	if !speaks(m.Version) || msize < p9.MinMsize {
		version = p9.VersionUnknown
		s.msize.Store(0)
	} else {
		s.msize.Store(msize)
	}
	r.out.U32(msize)
	r.out.Str([]byte(version))
	return nil
}

// speaks says whether v is 9P2000.L or an extension of it, which version(5)
// lets a server answer with the version proper.
func speaks(v []byte) bool {
	const own = p9.Version
	return len(v) >= len(own) && string(v[:len(own)]) == own &&
		(len(v) == len(own) || v[len(own)] == '.')
}
