package vsock

import (
	"net"
	"sync"
	"syscall"
)

// listener accepts the connections that the guest opens to one host port.
type listener struct {
	mux     *mux
	addr    Addr
	backlog chan *Conn // open already, and waiting for Accept
	done    chan struct{}
	once    sync.Once
}

var _ net.Listener = &listener{}

// listen takes the port, or a free one if it is 0.
func (m *mux) listen(port uint32) (*listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, net.ErrClosed
	case port == portAny:
		return nil, syscall.EINVAL
	case port == 0:
		port = m.freePort(portAny)
	case m.listeners[port] != nil:
		return nil, syscall.EADDRINUSE
	}
	l := &listener{
		mux:     m,
		addr:    Addr{CID: HostCID, Port: port},
		backlog: make(chan *Conn, backlogMax),
		done:    make(chan struct{}),
	}
	m.listeners[port] = l
	return l, nil
}

// Accept waits for the next connection. After Close it returns an error that
// wraps net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, opError(opAccept, nil, l.addr, net.ErrClosed)
	default:
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, opError(opAccept, nil, l.addr, net.ErrClosed)
	}
}

// Close resets the connections that nobody has accepted. Accepted ones live on.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.mux.mu.Lock()
		delete(l.mux.listeners, l.addr.Port) // from here accept puts nothing in
		orphans := l.drain()
		l.mux.mu.Unlock()
		close(l.done)
		for _, c := range orphans {
			c.abort(net.ErrClosed)
			_ = c.Close()
		}
	})
	return nil
}

// drain empties the backlog. mux.mu is held.
func (l *listener) drain() []*Conn {
	var all []*Conn
	for {
		select {
		case c := <-l.backlog:
			all = append(all, c)
		default:
			return all
		}
	}
}

// Addr returns CID 2 and the port.
func (l *listener) Addr() net.Addr { return l.addr }
