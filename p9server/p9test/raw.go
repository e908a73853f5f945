package p9test

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/lucid-containers/lucid/p9server/p9"
)

// Handler is a 9P session that serves one request at a time.
type Handler interface {
	Handle(req, reply [][]byte) int
}

// Raw is a client that sends one frame and takes its reply. It keeps to no
// rule of the protocol but the ones its caller keeps.
type Raw struct {
	H     Handler
	Msize int    // room for replies
	Tag   uint16 // of the next request
	Split int    // if positive, buffers are cut into pieces of so many bytes

	room []byte
}

// NewRaw negotiates msize 64 KiB with h.
func NewRaw(h Handler) (*Raw, error) {
	r := &Raw{H: h, Msize: 64 << 10}
	_, err := r.Call(&p9.Tversion{Msize: uint32(r.Msize), Version: []byte(p9.Version)})
	return r, err
}

// Frame sends frame as it is and returns the whole reply, nil if there was
// none.
func (r *Raw) Frame(frame []byte) []byte {
	if len(r.room) != r.Msize {
		r.room = make([]byte, r.Msize)
	}
	n := r.H.Handle(r.split(frame), r.split(r.room))
	if n == 0 {
		return nil
	}
	return append([]byte(nil), r.room[:n]...)
}

func (r *Raw) split(b []byte) [][]byte {
	if r.Split <= 0 {
		return [][]byte{b}
	}
	var out [][]byte
	for len(b) > r.Split {
		out = append(out, b[:r.Split:r.Split])
		b = b[r.Split:]
	}
	return append(out, b)
}

// Call sends m and returns the body of its reply. An Rlerror is returned as a
// syscall.Errno; a reply that is not one to m as another error.
func (r *Raw) Call(m p9.Message) ([]byte, error) { return r.CallData(m, nil) }

// CallData is Call for a message that data follows: Twrite.
func (r *Raw) CallData(m p9.Message, data []byte) ([]byte, error) {
	tag := r.Tag
	if m.Type() == p9.TypeTversion {
		tag = p9.NoTag
	}
	frame := append(p9.Append(nil, tag, m), data...)
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)))
	return Body(r.Frame(frame), m.Type(), tag)
}

// Body checks the header of a reply and returns what follows it.
func Body(reply []byte, t p9.Type, tag uint16) ([]byte, error) {
	if len(reply) < p9.HeaderSize {
		return nil, fmt.Errorf("p9test: reply of %d bytes", len(reply))
	}
	h := p9.ParseHeader((*[p9.HeaderSize]byte)(reply))
	body := reply[p9.HeaderSize:]
	switch {
	case int(h.Size) != len(reply):
		return nil, fmt.Errorf("p9test: reply says %d bytes and has %d", h.Size, len(reply))
	case h.Tag != tag:
		return nil, fmt.Errorf("p9test: reply has tag %d, want %d", h.Tag, tag)
	case h.Type == p9.TypeRlerror && len(body) == 4:
		return nil, syscall.Errno(binary.LittleEndian.Uint32(body))
	case h.Type != t.Reply():
		return nil, fmt.Errorf("p9test: reply of type %d to %d", h.Type, t)
	}
	return body, nil
}

// Attach makes fid the root of the export name; uid owns what is made through
// it.
func (r *Raw) Attach(fid uint32, name string, uid uint32) error {
	_, err := r.Call(&p9.Tattach{FID: fid, AFID: p9.NoFID, Aname: []byte(name), NUname: uid})
	return err
}

// Walk makes newfid the file at names below fid. A walk that stops half way
// is ENOENT.
func (r *Raw) Walk(fid, newfid uint32, names ...string) error {
	m := p9.Twalk{FID: fid, NewFID: newfid, N: len(names)}
	for i, n := range names {
		m.Names[i] = []byte(n)
	}
	body, err := r.Call(&m)
	if err == nil && int(binary.LittleEndian.Uint16(body)) != len(names) {
		return syscall.ENOENT
	}
	return err
}

// Open opens fid.
func (r *Raw) Open(fid, flags uint32) error {
	_, err := r.Call(&p9.Tlopen{FID: fid, Flags: flags})
	return err
}

// Create makes name in the directory fid, which becomes the open file.
func (r *Raw) Create(fid uint32, name string, flags, mode, gid uint32) error {
	_, err := r.Call(&p9.Tlcreate{FID: fid, Name: []byte(name), Flags: flags, Mode: mode, GID: gid})
	return err
}

// Read reads from an open fid.
func (r *Raw) Read(fid uint32, off uint64, count int) ([]byte, error) {
	body, err := r.Call(&p9.Tread{FID: fid, Offset: off, Count: uint32(count)})
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(body)
	if int(n) != len(body)-4 {
		return nil, fmt.Errorf("p9test: Rread says %d bytes and has %d", n, len(body)-4)
	}
	return body[4:], nil
}

// Write writes to an open fid.
func (r *Raw) Write(fid uint32, off uint64, data []byte) (int, error) {
	body, err := r.CallData(&p9.Twrite{FID: fid, Offset: off, Count: uint32(len(data))}, data)
	if err != nil {
		return 0, err
	}
	return int(binary.LittleEndian.Uint32(body)), nil
}

// Clunk gives up fid.
func (r *Raw) Clunk(fid uint32) error {
	_, err := r.Call(&p9.Tclunk{FID: fid})
	return err
}
