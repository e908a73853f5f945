package p9server

import (
	"sync"
	"time"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// flushWait bounds how long a Tflush waits. Everything served here ends by
// itself; only a host filesystem that hangs can take this long.
const flushWait = 10 * time.Second

// tagTable holds the requests in flight.
type tagTable struct {
	mu  sync.Mutex
	m   map[uint16]*Request // guarded by mu
	seq uint64              // guarded by mu: order of arrival
}

// add registers the request's tag. A tag that is in flight is refused, so is
// P9_NOTAG but for Tversion, which is not registered: nothing can flush it.
func (t *tagTable) add(r *Request, limit int) error {
	if r.hdr.Tag == p9.NoTag {
		if r.hdr.Type != p9.TypeTversion {
			return unix.EINVAL
		}
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// One that has been served is on its way out: its client may have seen the
	// reply, and use the tag again, before Done says so.
	if old := t.m[r.hdr.Tag]; old != nil && !old.served {
		return unix.EBUSY
	} else if old == nil && len(t.m) >= limit {
		return unix.EAGAIN
	}
	t.seq++
	r.seq = t.seq
	t.m[r.hdr.Tag] = r
	r.tagged = true
	return nil
}

// serve notes that the reply is ready to be sent.
func (t *tagTable) serve(r *Request) {
	t.mu.Lock()
	r.served = true
	t.mu.Unlock()
}

func (t *tagTable) remove(r *Request) {
	t.mu.Lock()
	if t.m[r.hdr.Tag] == r {
		delete(t.m, r.hdr.Tag)
	}
	done := r.done
	t.mu.Unlock()
	if done != nil {
		close(done)
	}
}

// pending returns a channel that is closed when the request with tag old ends,
// or nil if there is none to wait for. Waiting only for requests that arrived
// earlier makes it impossible for two flushes to wait for each other, or for
// one to wait for itself.
func (t *tagTable) pending(r *Request, old uint16) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	target := t.m[old]
	if target == nil || target.seq >= r.seq {
		return nil
	}
	if target.done == nil {
		target.done = make(chan struct{})
	}
	return target.done
}

// flush answers when the request it names has been answered. Nothing is
// interrupted: every operation is bounded, and the reply of a flushed request
// is allowed to come before Rflush.
func (s *Session) flush(r *Request) error {
	var m p9.Tflush
	if err := m.Decode(r.body); err != nil {
		return err
	}
	done := s.tags.pending(r, m.OldTag)
	if done == nil {
		return nil
	}
	timer := time.NewTimer(flushWait)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-s.closing:
		return unix.EIO
	case <-timer.C:
		// Rflush would promise that the old tag is free.
		return unix.ETIMEDOUT
	}
}
