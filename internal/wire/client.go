package wire

import (
	"context"
	"errors"
	"io"
	"sync"
)

// ErrClosed is returned by calls on a Client whose connection has ended in
// good order.
var ErrClosed = errors.New("wire: connection closed")

// maxHello bounds the parameters of a Hello, in bytes.
const maxHello = 4 << 10

// Event is something that the agent says unasked.
type Event struct {
	Method string
	Params []byte
}

// Exited decodes the event as a ContainerExited.
func (e Event) Exited() (*ContainerExited, error) {
	x := new(ContainerExited)
	if err := Unmarshal(e.Params, x); err != nil {
		return nil, err
	}
	return x, nil
}

// OOM decodes the event as a ContainerOOM.
func (e Event) OOM() (*ContainerOOM, error) {
	x := new(ContainerOOM)
	if err := Unmarshal(e.Params, x); err != nil {
		return nil, err
	}
	return x, nil
}

// Client is the host's end of the control channel.
type Client struct {
	conn    *Conn
	onEvent func(Event)

	helloCh chan struct{} // closed when hello is set
	hello   *Hello        // by the reader, before it closes helloCh

	done chan struct{} // closed when the reader has ended
	err  error         // why; by the reader, before it closes done

	// writing holds a token while a frame is written. A guest that does not
	// read keeps one writer, and the others give up with their callers.
	writing chan struct{}

	mu      sync.Mutex
	lastID  uint64                 // protected by mu
	pending map[uint64]chan *Frame // protected by mu; each has room for one
}

// NewClient returns a Client on rw, which it owns, and begins to read. onEvent
// is called for each event but Hello, in order, by the goroutine that reads:
// it must return soon and may not use Call. It may be nil.
func NewClient(rw io.ReadWriteCloser, onEvent func(Event)) *Client {
	c := &Client{
		conn:    NewConn(rw),
		onEvent: onEvent,
		helloCh: make(chan struct{}),
		done:    make(chan struct{}),
		writing: make(chan struct{}, 1),
		pending: make(map[uint64]chan *Frame),
	}
	go c.RoutineRead()
	return c
}

// Hello waits for the agent's first frame.
func (c *Client) Hello(ctx context.Context) (*Hello, error) {
	select {
	case <-c.helloCh:
		return c.hello, nil
	case <-c.done:
		select {
		case <-c.helloCh: // it came, and then the connection ended
			return c.hello, nil
		default:
			return nil, c.err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Call sends a request and waits for its response, which it decodes into
// result unless that is nil. A failure that the agent reports is an *Error. If
// ctx ends first the call is given up; the agent may still do it.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	message, err := Marshal(params)
	if err != nil {
		return err
	}
	f := &Frame{Method: method, Params: message}
	select {
	case c.writing <- struct{}{}:
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
	ch := make(chan *Frame, 1)
	c.mu.Lock()
	c.lastID++
	f.ID = c.lastID
	c.pending[f.ID] = ch
	c.mu.Unlock()
	defer c.forget(f.ID)

	// The write can block for as long as the guest does not read, so it
	// may not hold up a caller whose context has ended.
	wrote := make(chan error, 1)
	go func() {
		err := c.conn.WriteFrame(f)
		<-c.writing
		wrote <- err
	}()
	for {
		select {
		case err := <-wrote:
			if err != nil {
				return c.failure(err)
			}
			wrote = nil
		case r := <-ch:
			return decodeResult(r, result)
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failure prefers the reason the connection ended for to the error that a
// write on the ended connection gives.
func (c *Client) failure(err error) error {
	select {
	case <-c.done:
		return c.err
	default:
		return err
	}
}

func decodeResult(r *Frame, result any) error {
	if r.Error != nil {
		return r.Error
	}
	if result == nil {
		return nil
	}
	return Unmarshal(r.Result, result)
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection ended; it waits until it has.
func (c *Client) Err() error {
	<-c.done
	return c.err
}

// Close ends the connection and waits until no event callback runs. It may not
// be called by the event callback.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// RoutineRead takes frames until the connection ends; Close waits for it.
func (c *Client) RoutineRead() {
	defer close(c.done)
	for {
		f, err := c.conn.ReadFrame()
		if err == nil {
			err = c.take(f)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = ErrClosed
			}
			c.err = err
			_ = c.conn.Close()
			return
		}
	}
}

// take handles one frame from the agent.
func (c *Client) take(f *Frame) error {
	if c.hello == nil {
		return c.takeHello(f)
	}
	if f.ID == 0 {
		if f.Method == "" || f.Method == EventHello {
			return protocolError("event out of place")
		}
		if c.onEvent != nil {
			c.onEvent(Event{Method: f.Method, Params: f.Params})
		}
		return nil
	}
	c.mu.Lock()
	ch, known := c.pending[f.ID]
	delete(c.pending, f.ID) // a second response finds no taker
	issued := f.ID <= c.lastID
	c.mu.Unlock()
	if !issued {
		return protocolError("response to a request that was not sent")
	}
	if known {
		ch <- f
	}
	return nil
}

func (c *Client) takeHello(f *Frame) error {
	if f.ID != 0 || f.Method != EventHello {
		return protocolError("first frame is not Hello")
	}
	if len(f.Params) > maxHello {
		return protocolError("Hello is too long") // it is kept
	}
	h := new(Hello)
	if err := Unmarshal(f.Params, h); err != nil {
		return err
	}
	if h.Version != Version {
		return protocolError("agent speaks another version")
	}
	c.hello = h
	close(c.helloCh)
	return nil
}
