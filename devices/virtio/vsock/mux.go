package vsock

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Implementation constants.
const (
	// closeTimeout is what Linux gives a peer for its RST (VSOCK_CLOSE_TIMEOUT in
	// net/vmw_vsock/virtio_transport_common.c).
	closeTimeout = 8 * time.Second

	// windowMax is the default of Linux (VSOCK_DEFAULT_BUFFER_SIZE, af_vsock.c).
	windowMax = 256 << 10
	// windowMin is promised to every connection.
	windowMin = 8 << 10

	// backlogMax bounds the connections that wait for Accept, per listener.
	backlogMax = 128

	// portEphemeral is where ports for Dial begin: far from what people pick.
	portEphemeral = 1 << 30
	portAny       = 1<<32 - 1 // VMADDR_PORT_ANY, nobody's port
)

type connKey struct{ guest, host uint32 }

// mux knows which connection a packet of the guest belongs to, and who listens.
type mux struct {
	guestCID     uint32
	maxConns     int // per side that connects
	closeTimeout time.Duration
	rx           rxq
	dropped      atomic.Uint64 // packets of the guest that nobody answered
	done         chan struct{} // closed by shutdown

	mu        sync.Mutex // protects what follows
	closed    bool
	conns     map[connKey]*Conn
	listeners map[uint32]*listener
	holds     map[uint32]*hold // nil until Hold
	lastPort  uint32
	fromGuest int // connections that count against maxConns
	fromHost  int
	spare     int // bytes of Config.Buffer that no window has
}

// deliver handles one packet of the guest. pages begin with the header, which h
// was read from once; they have payload bytes after it.
func (m *mux) deliver(h *header, pages [][]byte, payload uint64) {
	if h.srcCID != uint64(m.guestCID) || h.dstCID != HostCID {
		m.dropped.Add(1) // an RST would go to somebody else
		return
	}
	if h.typ != typeStream { // virtio 1.2 section 5.10.6
		m.refuse(h)
		return
	}
	k := connKey{guest: h.srcPort, host: h.dstPort}
	m.mu.Lock()
	c := m.conns[k]
	m.mu.Unlock()
	switch {
	case c == nil && h.op == opRequest:
		m.accept(k, h)
	case c == nil:
		m.refuse(h)
	case uint64(h.len) > payload: // CVE-2019-18960
		c.abort(syscall.EPROTO)
	default:
		m.settle(c, c.recv(h, pages))
	}
}

// refuse answers RST to a packet of no connection.
func (m *mux) refuse(h *header) {
	if h.op == opReset || !m.rx.reset(h) {
		m.dropped.Add(1)
	}
}

// accept makes the connection that the guest asks for, if somebody wants it.
func (m *mux) accept(k connKey, h *header) {
	m.mu.Lock()
	if m.keep(k, h) {
		m.mu.Unlock()
		return
	}
	l := m.listeners[k.host]
	if l == nil || len(l.backlog) == cap(l.backlog) || m.fromGuest >= m.maxConns || h.fwdCnt != 0 {
		m.mu.Unlock()
		m.refuse(h)
		return
	}
	c := m.add(k, false)
	c.peerAlloc = min(h.bufAlloc, peerAllocMax)
	// Never blocks: only accept puts, and mu is held.
	l.backlog <- c
	m.mu.Unlock()
	m.rx.schedule(c)
}

// add puts a new connection on the wire. m.mu is held, and the limits allow it.
func (m *mux) add(k connKey, dialed bool) *Conn {
	// Each gets an eighth of what is spare: the first ones all they want, later ones
	// less, and nobody takes the last byte.
	extra := min(m.spare/8, windowMax-windowMin) &^ 0xfff
	m.spare -= extra
	if dialed {
		m.fromHost++
	} else {
		m.fromGuest++
	}
	c := newConn(m, k, uint32(windowMin+extra), dialed)
	c.onWire, c.onHost = true, true
	m.conns[k] = c
	return c
}

// settle does what is left to do after a change of c. No lock is held.
func (m *mux) settle(c *Conn, out outcome) {
	if out&isDead != 0 {
		m.offWire(c)
	}
	if out&hasWork != 0 {
		m.rx.schedule(c)
	}
}

// offWire frees the ports of a dead connection.
func (m *mux) offWire(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.onWire {
		c.onWire = false
		delete(m.conns, c.key())
		m.release(c)
	}
}

// offHost notes that the host's end is closed.
func (m *mux) offHost(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.onHost {
		c.onHost = false
		m.release(c)
	}
}

// release stops counting a connection that neither end has any more.
func (m *mux) release(c *Conn) {
	if c.onWire || c.onHost {
		return
	}
	m.spare += int(c.window) - windowMin
	if c.dialed {
		m.fromHost--
	} else {
		m.fromGuest--
	}
}

// freePort finds a host port for Dial or Listen. m.mu is held.
func (m *mux) freePort(guest uint32) uint32 {
	// Ends: no more ports are in use than the limits allow.
	for {
		m.lastPort++
		if m.lastPort < portEphemeral || m.lastPort == portAny {
			m.lastPort = portEphemeral
		}
		if m.listeners[m.lastPort] == nil && m.conns[connKey{guest: guest, host: m.lastPort}] == nil {
			return m.lastPort
		}
	}
}

// dial opens a connection to a port of the guest.
func (m *mux) dial(ctx context.Context, port uint32) (*Conn, error) {
	if err := m.rx.waitUp(ctx, m.done); err != nil {
		return nil, err
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, net.ErrClosed
	}
	if m.fromHost >= m.maxConns {
		m.mu.Unlock()
		return nil, syscall.EAGAIN
	}
	c := m.add(connKey{guest: port, host: m.freePort(port)}, true)
	m.mu.Unlock()
	m.rx.schedule(c)

	select {
	case <-c.opened:
	case <-ctx.Done():
		c.abort(ctx.Err())
	}
	c.mu.Lock()
	ok, err := c.wasOpen, c.err
	c.mu.Unlock()
	if ok && ctx.Err() == nil {
		return c, nil
	}
	_ = c.Close()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, err
}

// dropAll ends every connection without a word to the guest, which has forgotten
// them. Listeners live on.
func (m *mux) dropAll(err error) {
	var conns, orphans []*Conn
	m.mu.Lock()
	for _, c := range m.conns {
		conns = append(conns, c)
	}
	for _, l := range m.listeners {
		orphans = append(orphans, l.drain()...)
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.drop(err)
	}
	for _, c := range orphans {
		_ = c.Close()
	}
}

// shutdown ends everything for good, and tells the guest.
func (m *mux) shutdown() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	close(m.done)
	var ls []*listener
	for _, l := range m.listeners {
		ls = append(ls, l)
	}
	var conns []*Conn
	for _, c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()
	for _, l := range ls {
		_ = l.Close()
	}
	for _, c := range conns {
		c.abort(net.ErrClosed)
	}
}
