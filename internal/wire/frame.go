package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strconv"
	"sync"
)

// MaxFrame caps one frame, in bytes behind its length.
const MaxFrame = 8 << 20

// frameHeader is the size of the u32 length before each frame.
const frameHeader = 4

// growStep is how far ahead of the received bytes a read buffer may grow.
const growStep = 64 << 10

// ErrProtocol is wrapped by each error that a peer's garbage causes.
var ErrProtocol = errors.New("wire: protocol error")

// protocolError is an ErrProtocol with its reason.
type protocolError string

func (e protocolError) Error() string { return "wire: protocol error: " + string(e) }
func (e protocolError) Unwrap() error { return ErrProtocol }

// Frame is what one control frame holds: a request (ID and Method), its
// response (ID, and Error or Result) or an event (Method, ID 0). Params and Result
// are what Marshal makes of a message.
type Frame struct {
	ID     uint64
	Method string
	Params []byte
	Result []byte
	Error  *Error
}

// Conn reads and writes frames on a byte channel. One goroutine may read while
// many write.
type Conn struct {
	rw  io.ReadWriteCloser
	hdr [frameHeader]byte // of the frame being read

	writeMu sync.Mutex // one frame at a time
}

// NewConn returns a Conn on rw, which it owns.
func NewConn(rw io.ReadWriteCloser) *Conn { return &Conn{rw: rw} }

// Close closes the byte channel.
func (c *Conn) Close() error { return c.rw.Close() }

// ReadFrame reads one frame. io.EOF means that the peer closed the channel
// between two frames.
func (c *Conn) ReadFrame() (*Frame, error) {
	b, err := c.readBytes()
	if err != nil {
		return nil, err
	}
	f := new(Frame)
	if err := Unmarshal(b, f); err != nil {
		return nil, err
	}
	return f, nil
}

// readBytes reads the payload of one frame. The buffer follows what has
// arrived, so a peer that claims much and sends little costs little.
func (c *Conn) readBytes() ([]byte, error) {
	if _, err := io.ReadFull(c.rw, c.hdr[:]); err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(c.hdr[:]))
	if size == 0 || size > MaxFrame {
		return nil, protocolError("frame of " + strconv.Itoa(size) + " bytes")
	}
	buf := make([]byte, min(size, growStep))
	for have := 0; ; {
		n, err := io.ReadFull(c.rw, buf[have:])
		have += n
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		if have == size {
			return buf, nil
		}
		next := make([]byte, min(size, 2*have))
		copy(next, buf)
		buf = next
	}
}

// WriteFrame writes one frame with a single Write.
func (c *Conn) WriteFrame(f *Frame) error {
	b, err := appendValue(make([]byte, frameHeader, 256+len(f.Params)+len(f.Result)), reflect.ValueOf(f).Elem())
	if err != nil {
		return err
	}
	if len(b)-frameHeader > MaxFrame {
		return protocolError("frame of " + strconv.Itoa(len(b)-frameHeader) + " bytes")
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-frameHeader))
	return c.WriteRaw(b)
}

// WriteRaw writes a frame that is already encoded, header included.
func (c *Conn) WriteRaw(b []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	_, err := c.rw.Write(b)
	return err
}
