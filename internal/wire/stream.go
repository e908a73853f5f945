package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is one direction pair of raw bytes. CloseWrite ends what this side
// sends; the peer then reads io.EOF.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Expecter is the host's way to streams: it says which id it is about to
// give to the agent, and then waits for the agent to open it. Listener and Mux
// are Expecters.
type Expecter interface {
	Expect(id uint64) (*Expected, error)
}

// Opener is the agent's way to streams. Mux is one.
type Opener interface {
	Open(id uint64) (Stream, error)
}

var (
	// ErrStreamID is for an id that is 0 or already in use.
	ErrStreamID = errors.New("wire: stream id is 0 or in use")
	// ErrTooManyStreams is for more than MaxStreams at once.
	ErrTooManyStreams = errors.New("wire: too many streams")
)

// MaxStreams bounds the streams of one Mux and the unanswered ones of a
// Listener.
const MaxStreams = 1024

// NewStreamID returns a random id. It is never 0. It asks the kernel itself,
// because crypto/rand would double the start-up work of the agent, which imports
// this package and never calls NewStreamID.
func NewStreamID() uint64 {
	var b [streamIDSize]byte
	for {
		// getrandom(2): up to 256 bytes come whole.
		if n, err := unix.Getrandom(b[:], 0); err != nil || n != len(b) {
			continue // a signal came while the generator was not ready
		}
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

// streamIDSize is the length of the id that begins a stream's connection.
const streamIDSize = 8

// PutStreamID returns the bytes that begin the connection of stream id.
func PutStreamID(id uint64) []byte {
	return binary.LittleEndian.AppendUint64(nil, id)
}

// Expected is a stream that the host waits for.
type Expected struct {
	opened chan Stream // has room for one
	ended  <-chan struct{}
	cause  func() error
	cancel func()
	taken  atomic.Bool // Wait has returned the stream
}

// Wait returns the stream once the agent has opened it.
func (e *Expected) Wait(ctx context.Context) (Stream, error) {
	select {
	case s := <-e.opened:
		e.taken.Store(true)
		return s, nil
	case <-e.ended:
		// What came before the end is still good.
		select {
		case s := <-e.opened:
			e.taken.Store(true)
			return s, nil
		default:
			return nil, e.cause()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Cancel gives the stream up: one that the agent opens later, or has opened and
// Wait has not returned, is closed. After a Wait that returned the stream it
// does nothing, so it can be deferred.
func (e *Expected) Cancel() {
	if e.taken.Load() {
		return
	}
	e.cancel()
	select {
	case s := <-e.opened:
		_ = s.Close()
	default:
	}
}

// maxHandshakes bounds the connections that have not yet sent their id. One
// more ends a random one of them, so that a process of the container that
// opens connections and says nothing cannot keep the agent out for good.
const maxHandshakes = 64

// handshakeTime is how long a connection may take to send its id, which an
// agent sends as soon as it is connected. One that is silent holds a part of the
// device's buffer.
const handshakeTime = 10 * time.Second

// Listener gives each connection that begins with an expected id to whoever
// expects it.
type Listener struct {
	accept   func() (Stream, error)
	patience time.Duration // handshakeTime, but in tests
	done     chan struct{} // closed when accept has failed
	err      error         // before done is closed

	mu      sync.Mutex
	waiting map[uint64]*Expected // protected by mu
	shaking map[Stream]struct{}  // protected by mu; handshakes under way
	wg      sync.WaitGroup       // handshakes
}

// NewListener accepts connections by accept until it fails. For a net.Listener
// l on vsock:
//
//	wire.NewListener(func() (wire.Stream, error) {
//		c, err := l.Accept()
//		if err != nil {
//			return nil, err
//		}
//		return c.(wire.Stream), nil
//	})
//
// To end it close l and call Wait.
func NewListener(accept func() (Stream, error)) *Listener {
	return newListener(accept, handshakeTime)
}

func newListener(accept func() (Stream, error), patience time.Duration) *Listener {
	l := &Listener{
		accept:   accept,
		patience: patience,
		done:     make(chan struct{}),
		waiting:  make(map[uint64]*Expected),
		shaking:  make(map[Stream]struct{}),
	}
	go l.RoutineAccept()
	return l
}

// Wait returns when accept has failed and no goroutine of the Listener is left.
func (l *Listener) Wait() error {
	<-l.done
	return l.err
}

// Expect announces an id.
func (l *Listener) Expect(id uint64) (*Expected, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.waiting[id]; taken || id == 0 {
		return nil, ErrStreamID
	}
	if len(l.waiting) >= MaxStreams {
		return nil, ErrTooManyStreams
	}
	e := &Expected{
		opened: make(chan Stream, 1),
		ended:  l.done,
		cause:  func() error { return l.err },
		cancel: func() {
			l.mu.Lock()
			delete(l.waiting, id)
			l.mu.Unlock()
		},
	}
	l.waiting[id] = e
	return e, nil
}

// RoutineAccept accepts connections until that fails; Wait waits for it.
func (l *Listener) RoutineAccept() {
	for {
		s, err := l.accept()
		if err != nil {
			l.finish(err)
			return
		}
		l.admit(s)
		l.wg.Add(1)
		go l.RoutineHandshake(s)
	}
}

// admit counts s among the handshakes, in place of another one if there are
// too many.
func (l *Listener) admit(s Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.shaking) >= maxHandshakes {
		for victim := range l.shaking {
			delete(l.shaking, victim)
			_ = victim.Close()
			break
		}
	}
	l.shaking[s] = struct{}{}
}

// finish closes the connections that are still shaking hands, which ends their
// goroutines.
func (l *Listener) finish(err error) {
	l.mu.Lock()
	for s := range l.shaking {
		_ = s.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	l.err = err
	close(l.done)
}

// RoutineHandshake reads the id of one connection and hands it over.
func (l *Listener) RoutineHandshake(s Stream) {
	defer l.wg.Done()
	var b [streamIDSize]byte
	timer := time.AfterFunc(l.patience, func() { _ = s.Close() })
	_, err := io.ReadFull(s, b[:])
	if !timer.Stop() && err == nil {
		err = errStreamClosed // it came as its time ran out
	}
	id := binary.LittleEndian.Uint64(b[:])
	l.mu.Lock()
	delete(l.shaking, s)
	e := l.waiting[id]
	if e != nil && err == nil {
		delete(l.waiting, id)
		e.opened <- s // has room: an id is handed over once
	}
	l.mu.Unlock()
	if e == nil || err != nil {
		_ = s.Close()
	}
}
