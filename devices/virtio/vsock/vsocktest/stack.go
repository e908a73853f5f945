package vsocktest

import (
	"net"
	"sync"
	"syscall"
	"time"
)

type key struct{ guest, host uint32 }

// Stack is the guest's socket layer.
type Stack struct {
	g    *Guest
	done chan struct{}

	mu        sync.Mutex
	conns     map[key]*Conn
	listeners map[uint32]chan *Conn
	next      uint32
}

// NewStack starts a stack on g, which ends with g.
func NewStack(g *Guest) *Stack {
	s := &Stack{g: g, done: make(chan struct{}), conns: map[key]*Conn{}, listeners: map[uint32]chan *Conn{}, next: 1024}
	go s.routineRX()
	g.t.Cleanup(func() { g.Stop(); <-s.done })
	return s
}

func (s *Stack) routineRX() {
	defer close(s.done)
	for s.g.recv(time.Hour, s.handle) {
	}
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, c := range conns {
		c.fail(syscall.ECONNRESET)
	}
}

func (s *Stack) handle(h Header, p []byte) {
	k := key{guest: h.DstPort, host: h.SrcPort}
	s.mu.Lock()
	c, accept := s.conns[k], s.listeners[h.DstPort]
	if c == nil && accept != nil && h.Op == OpRequest {
		c = s.add(k)
		s.mu.Unlock()
		c.mu.Lock()
		c.opened, c.peerAlloc = true, h.BufAlloc
		c.mu.Unlock()
		c.send(OpResponse, 0, nil)
		accept <- c
		return
	}
	s.mu.Unlock()
	switch {
	case c != nil:
		c.recv(h, p)
	case h.Op != OpReset:
		s.g.Send(Header{SrcPort: h.DstPort, DstPort: h.SrcPort, Op: OpReset}, nil)
	}
}

// add makes a connection. s.mu is held.
func (s *Stack) add(k key) *Conn {
	c := &Conn{s: s, key: k}
	c.cond.L = &c.mu
	s.conns[k] = c
	return c
}

func (s *Stack) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.key] == c {
		delete(s.conns, c.key)
	}
}

// Conns is how many connections the guest knows.
func (s *Stack) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Dial connects to a port of the host.
func (s *Stack) Dial(port uint32) (*Conn, error) {
	s.mu.Lock()
	s.next++
	c := s.add(key{guest: s.next, host: port})
	s.mu.Unlock()
	c.send(OpRequest, 0, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.opened && c.err == nil {
		c.cond.Wait()
	}
	if !c.opened {
		return nil, c.err
	}
	return c, nil
}

// Listen takes connections of the host to a port of the guest.
func (s *Stack) Listen(port uint32) <-chan *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan *Conn, 1024)
	s.listeners[port] = ch
	return ch
}

// addr is an address of the fake guest.
type addr string

func (addr) Network() string  { return "vsocktest" }
func (a addr) String() string { return string(a) }

var _ net.Conn = &Conn{}
