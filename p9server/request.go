package p9server

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"

	"github.com/lucid-containers/lucid/p9server/p9"
	"golang.org/x/sys/unix"
)

// maxFixed is the longest message whose body is copied: all but the payload of
// Twrite. The longest legitimate one is a Twalk or Trenameat of some 4 KiB or a
// Tsymlink with a target of PATH_MAX.
const maxFixed = 8 << 10

// Request is one T-message on its way.
//
//	Accept ──> Serve ──> (the transport sends the reply) ──> Done
//
// Accept registers the tag. A transport with several workers calls it in the
// order in which requests arrive, and Done when the reply is where the client
// sees it. Then a Tflush finds the request it is about, and is answered only
// after that request was. Each method is called once.
type Request struct {
	s      *Session
	req    [][]byte
	hdr    p9.Header
	fail   error // found by Accept
	silent bool  // not even a header: no reply
	tagged bool  // in the tag table
	seq    uint64
	served bool          // guarded by tags.mu
	done   chan struct{} // made by the first flush that waits; guarded by tags.mu

	body  []byte // the message after its header, private
	room  uint64 // for the reply
	fixed [maxFixed]byte
	out   p9.Reply
	outb  [maxFixed]byte
}

var requests = sync.Pool{New: func() any { return new(Request) }}

// Accept copies the header of a request and registers its tag.
func (s *Session) Accept(req [][]byte) *Request {
	r := requests.Get().(*Request)
	r.s, r.req = s, req
	r.fail, r.silent, r.tagged, r.served, r.done, r.body = nil, false, false, false, nil, nil

	n := gather(r.fixed[:p9.WriteHeaderSize], req, 0)
	if n < p9.HeaderSize {
		r.silent = true
		return r
	}
	r.hdr = p9.ParseHeader((*[p9.HeaderSize]byte)(r.fixed[:]))
	r.fail = s.copyBody(r, n)
	if r.fail == nil {
		r.fail = s.tags.add(r, s.srv.limits.Tags)
	}
	return r
}

// copyBody checks the size of the message and copies what is fixed of it. n
// bytes are in r.fixed already, and are not read again: the guest may have
// changed them since.
func (s *Session) copyBody(r *Request, n int) error {
	size := uint64(r.hdr.Size)
	msize := uint64(s.msize.Load())
	if msize == 0 {
		msize = p9.MinMsize // before Tversion only that is answered
	}
	switch {
	case size != total(r.req), size < p9.HeaderSize:
		return unix.EINVAL
	case size > msize:
		return unix.EMSGSIZE
	case r.hdr.Type == p9.TypeTwrite:
		if size < p9.WriteHeaderSize {
			return unix.EINVAL
		}
		r.body = r.fixed[p9.HeaderSize:p9.WriteHeaderSize]
		return nil
	case size > maxFixed:
		return unix.ENAMETOOLONG
	}
	if int(size) > n {
		if n+gather(r.fixed[n:size], r.req, n) != int(size) {
			return unix.EINVAL
		}
	}
	r.body = r.fixed[p9.HeaderSize:size]
	return nil
}

// maxQuick is how many bytes a quick request moves: as many as Linux asks for by
// default, and twice. To hand them to another thread costs more than to copy them.
const maxQuick = 1 << 20

// Quick says whether Serve is likely to take some microseconds, and nothing but
// disks of this host can hold it up. A transport may then have whoever brought
// the request wait for it.
func (r *Request) Quick() bool {
	if r.silent || r.fail != nil {
		return true // there is nothing to be done
	}
	change := false
	switch r.hdr.Type {
	case p9.TypeTversion:
		return r.s.msize.Load() == 0 // a later one closes all files
	case p9.TypeTattach:
		return true
	case p9.TypeTfsync, p9.TypeTflush:
		return false
	case p9.TypeTread, p9.TypeTreaddir:
		var m p9.Tread // a Treaddir is the same
		if m.Decode(r.body) != nil || m.Count > maxQuick {
			return false
		}
	case p9.TypeTlopen:
		var m p9.Tlopen
		if m.Decode(r.body) != nil {
			return false
		}
		change = m.Flags&p9.OpenAccMode != p9.OpenRDONLY
	case p9.TypeTsetattr, p9.TypeTlink, p9.TypeTrename, p9.TypeTrenameat, p9.TypeTxattrcreate:
		change = true
	}
	// All these begin with a fid.
	return r.hdr.Size <= maxQuick && len(r.body) >= 4 && r.s.fids.quick(binary.LittleEndian.Uint32(r.body), change, r.hdr.Type == p9.TypeTwrite)
}

// Serve does what the request asks for and writes the reply into bufs. It
// returns the length of the reply, 0 for none.
func (r *Request) Serve(bufs [][]byte) int {
	n := r.serve(bufs)
	if r.tagged {
		r.s.tags.serve(r)
	}
	return n
}

func (r *Request) serve(bufs [][]byte) int {
	if r.silent {
		return 0
	}
	room := total(bufs)
	if room < p9.RlerrorSize {
		return 0
	}
	r.room = room
	r.out.Begin(r.outb[:], r.hdr.Type.Reply(), r.hdr.Tag)
	err := r.fail
	if err == nil {
		var n int
		n, err = r.dispatch(bufs)
		if err == nil && n > 0 {
			return n // the reply is in place
		}
	}
	if err != nil {
		r.out.Error(errno(err))
	}
	msg := r.out.Finish()
	if uint64(len(msg)) > room {
		r.out.Error(unix.ENOBUFS)
		msg = r.out.Finish()
	}
	scatter(bufs, 0, msg)
	return len(msg)
}

// Done ends the request. The reply has been sent by then.
func (r *Request) Done() {
	if r.tagged {
		r.s.tags.remove(r)
	}
	r.s, r.req = nil, nil
	requests.Put(r)
}

// errno is what the guest is told.
func errno(err error) syscall.Errno {
	if errors.Is(err, p9.ErrMalformed) {
		return unix.EINVAL
	}
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return unix.EIO
}

// dispatch runs the handler. Handlers of bulk data write their whole reply
// themselves and return its length; all others fill r.out and return 0.
func (r *Request) dispatch(bufs [][]byte) (int, error) {
	s := r.s
	if r.hdr.Type == p9.TypeTversion {
		return 0, s.version(r)
	}
	if s.msize.Load() == 0 {
		return 0, unix.EPROTO // Tversion comes first
	}
	switch r.hdr.Type {
	case p9.TypeTread:
		return s.read(r, bufs)
	case p9.TypeTwrite:
		return 0, s.write(r)
	case p9.TypeTreaddir:
		return s.readdir(r, bufs)
	}
	if h := handlers[r.hdr.Type]; h != nil {
		return 0, h(s, r)
	}
	return 0, unix.EOPNOTSUPP
}

// handlers are the messages with small replies.
var handlers = [256]func(*Session, *Request) error{
	p9.TypeTauth:        (*Session).auth,
	p9.TypeTattach:      (*Session).attach,
	p9.TypeTflush:       (*Session).flush,
	p9.TypeTwalk:        (*Session).walk,
	p9.TypeTclunk:       (*Session).clunk,
	p9.TypeTremove:      (*Session).remove,
	p9.TypeTstatfs:      (*Session).statfs,
	p9.TypeTlopen:       (*Session).lopen,
	p9.TypeTlcreate:     (*Session).lcreate,
	p9.TypeTsymlink:     (*Session).symlink,
	p9.TypeTmknod:       (*Session).mknod,
	p9.TypeTmkdir:       (*Session).mkdir,
	p9.TypeTlink:        (*Session).link,
	p9.TypeTrename:      (*Session).rename,
	p9.TypeTrenameat:    (*Session).renameat,
	p9.TypeTunlinkat:    (*Session).unlinkat,
	p9.TypeTreadlink:    (*Session).readlink,
	p9.TypeTgetattr:     (*Session).getattr,
	p9.TypeTsetattr:     (*Session).setattr,
	p9.TypeTxattrwalk:   (*Session).xattrwalk,
	p9.TypeTxattrcreate: (*Session).xattrcreate,
	p9.TypeTfsync:       (*Session).fsync,
	p9.TypeTlock:        (*Session).lock,
	p9.TypeTgetlock:     (*Session).getlock,
}
