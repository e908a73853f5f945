package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"sync"
)

// A mux frame is a header and at most muxMaxData bytes:
//
//	0  u64  stream id
//	8  u32  kind
//	12 u32  length of the data that follow, or for muxCredit the bytes granted
//
// All numbers are little-endian. A stream lives from muxOpen, which only the
// agent sends, to muxReset or to muxEOF in both directions. Each side may send
// muxWindow bytes beyond what the peer has granted since; the receiver grants
// what its reader has taken. So a buffer holds at most muxWindow bytes, the
// reader of the channel never waits for a reader of a stream, and a slow
// stream holds up only itself.
const (
	muxHeader  = 16
	muxMaxData = 16 << 10
	muxWindow  = 64 << 10
)

// Kinds of mux frames.
const (
	muxOpen   = 1 // the agent opens the stream
	muxData   = 2
	muxCredit = 3 // the receiver's reader took that many bytes
	muxEOF    = 4 // no more data in this direction
	muxReset  = 5 // the stream is over in both directions
)

// ErrReset is what a stream gives after the peer closed it.
var ErrReset = errors.New("wire: stream reset by peer")

// errStreamClosed is what a stream gives after its own Close.
var errStreamClosed = errors.New("wire: stream closed")

// Mux carries streams over one byte channel. The host expects streams and the
// agent opens them; both ends are a Mux.
type Mux struct {
	rw   io.ReadWriteCloser
	done chan struct{} // closed when the reader has ended
	err  error         // why; before done is closed

	// writeMu serialises frames. The peer's reader never waits for anything
	// but its own memory, so a writer waits for the channel at most.
	writeMu sync.Mutex
	out     []byte // protected by writeMu; one frame

	mu        sync.Mutex // before muxStream.mu
	streams   map[uint64]*muxStream
	resets    []uint64       // ids of streams whose muxReset is due
	resetting bool           // RoutineResets runs
	wg        sync.WaitGroup // RoutineResets
}

// NewMux returns a Mux on rw, which it owns, and begins to read.
func NewMux(rw io.ReadWriteCloser) *Mux {
	m := &Mux{rw: rw, done: make(chan struct{}), streams: make(map[uint64]*muxStream)}
	go m.RoutineRead()
	return m
}

// Close ends the channel and all streams.
func (m *Mux) Close() error {
	err := m.rw.Close()
	<-m.done
	m.wg.Wait()
	return err
}

// Done is closed when the channel has ended.
func (m *Mux) Done() <-chan struct{} { return m.done }

// Open opens a stream that the host expects.
func (m *Mux) Open(id uint64) (Stream, error) {
	s, err := m.add(id, nil)
	if err != nil {
		return nil, err
	}
	if err := m.send(id, muxOpen, nil, 0); err != nil {
		m.remove(s)
		return nil, err
	}
	return s, nil
}

// Expect announces an id that the agent is going to open.
func (m *Mux) Expect(id uint64) (*Expected, error) {
	opened := make(chan Stream, 1)
	s, err := m.add(id, opened)
	if err != nil {
		return nil, err
	}
	return &Expected{
		opened: opened,
		ended:  m.done,
		cause:  func() error { return m.err },
		cancel: func() { _ = s.Close() },
	}, nil
}

// add makes a stream: one that is open, or one that goes to expected when the
// agent opens it.
func (m *Mux) add(id uint64, expected chan Stream) (*muxStream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.streams[id]; taken || id == 0 {
		return nil, ErrStreamID
	}
	if len(m.streams) >= MaxStreams {
		return nil, ErrTooManyStreams
	}
	select {
	case <-m.done:
		return nil, m.err
	default:
	}
	s := newMuxStream(m, id, expected)
	m.streams[id] = s
	return s, nil
}

func (m *Mux) remove(s *muxStream) {
	m.mu.Lock()
	if m.streams[s.id] == s {
		delete(m.streams, s.id)
	}
	m.mu.Unlock()
}

func (m *Mux) lookup(id uint64) *muxStream {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streams[id]
}

// send writes one frame. n is the length field when there is no data.
func (m *Mux) send(id uint64, kind uint32, data []byte, n uint32) error {
	m.writeMu.Lock()
	defer m.writeMu.Unlock()
	if data != nil {
		n = uint32(len(data))
	}
	b := binary.LittleEndian.AppendUint64(m.out[:0], id)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, n)
	m.out = append(b, data...)
	_, err := m.rw.Write(m.out)
	return err
}

// reset tells the peer that a stream is over. It does not wait: a Close must not
// hang because the peer does not read.
func (m *Mux) reset(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.done:
		return
	default:
	}
	m.resets = append(m.resets, id)
	if !m.resetting {
		m.resetting = true
		m.wg.Go(m.RoutineResets)
	}
}

// RoutineResets sends the resets that are due. Close of the Mux waits for it.
func (m *Mux) RoutineResets() {
	for {
		m.mu.Lock()
		if len(m.resets) == 0 {
			m.resetting = false
			m.mu.Unlock()
			return
		}
		id := m.resets[0]
		m.resets = m.resets[1:]
		m.mu.Unlock()
		// An error is the end of the channel, and of all streams.
		_ = m.send(id, muxReset, nil, 0)
	}
}

// RoutineRead takes frames until the channel ends; Close waits for it. It
// writes nothing: two readers that wait for each other's writers would hang.
func (m *Mux) RoutineRead() {
	err := m.readFrames()
	_ = m.rw.Close()
	m.mu.Lock()
	m.err = err
	close(m.done)
	streams := m.streams
	m.streams = nil
	m.mu.Unlock()
	for _, s := range streams {
		s.fail(err)
	}
}

func (m *Mux) readFrames() error {
	var header [muxHeader]byte
	data := make([]byte, muxMaxData)
	for {
		if _, err := io.ReadFull(m.rw, header[:]); err != nil {
			return err
		}
		id := binary.LittleEndian.Uint64(header[0:])
		kind := binary.LittleEndian.Uint32(header[8:])
		n := binary.LittleEndian.Uint32(header[12:])
		var payload []byte
		if kind == muxData {
			if n > muxMaxData {
				return protocolError("mux data of " + strconv.Itoa(int(n)) + " bytes")
			}
			payload = data[:n]
			if _, err := io.ReadFull(m.rw, payload); err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		if err := m.take(id, kind, n, payload); err != nil {
			return err
		}
	}
}

// take handles one frame. Frames for a stream that is not here are dropped:
// it was closed on this side while they were on their way.
func (m *Mux) take(id uint64, kind, n uint32, payload []byte) error {
	if kind < muxOpen || kind > muxReset {
		return protocolError("mux frame of kind " + strconv.Itoa(int(kind)))
	}
	if kind != muxData && kind != muxCredit && n != 0 {
		return protocolError("mux frame with a length it cannot have")
	}
	s := m.lookup(id)
	if s == nil {
		return nil
	}
	switch kind {
	case muxOpen:
		return s.takeOpen()
	case muxData:
		return s.takeData(payload)
	case muxCredit:
		return s.takeCredit(n)
	case muxEOF:
		s.takeEOF()
	case muxReset:
		s.fail(ErrReset)
		m.remove(s)
	}
	return nil
}
