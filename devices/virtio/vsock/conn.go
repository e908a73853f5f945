package vsock

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// A primer on one stream connection of virtio 1.2 section 5.10.6.
//
// Handshake. The side that connects sends REQUEST; the other side answers
// RESPONSE (open) or RST (refused). Ports are 32 bits; a connection is named by
// (guest port, host port), for each CID is fixed here.
//
//	guest connects                     host dials
//	guest          host                guest          host
//	  | REQUEST --> | accept queue       | <-- REQUEST  | Dial
//	  | <- RESPONSE |                    | RESPONSE --> | Dial returns
//
// Data. RW packets. Every packet, whatever its op, carries the credit of its
// sender: bufAlloc, how much it can hold, and fwdCnt, how many bytes its reader
// has taken out since the start (modulo 2^32). The other side may have
//
//	sent - fwdCnt <= bufAlloc
//
// bytes on the way. So nobody has to buffer more than it offered, a reader that
// does not read stops the writer, and neither queue ever stalls for the sake of
// one connection. CREDIT_UPDATE carries nothing else; CREDIT_REQUEST asks for it.
// Here a Write waits until its last byte is in guest memory: the sending side
// has no buffer at all.
//
// Shutdown. SHUTDOWN says "I send no more" and/or "I receive no more", and
// cannot be taken back. Who gets both from its peer answers RST, which frees the
// ports. Who sent both and sees no RST for closeTimeout sends RST itself. RST
// without SHUTDOWN before it is an abort.
//
//	connecting --RESPONSE--> open --------- RST from the guest -------> dead
//	    |                     |                                          ^
//	    | Dial given up,      | SHUTDOWN both from the guest,            |
//	    | any other packet    | broken protocol, closeTimeout            |
//	    +-------------------> dying ---- our RST has left, or timeout ---+
//
// state is the state on the wire. The host's end has a life of its own: a dead
// connection can be read until EOF, and counts against the limits until Close.
type state uint8

const (
	connecting state = iota // our REQUEST waits for its RESPONSE
	open
	dying // our RST waits for a buffer of the guest
	dead  // not on the wire any more
)

// A set of packets that a connection still has to send, besides data and RST.
type pending uint8

const (
	pendRequest pending = 1 << iota
	pendResponse
	pendShutdown
	pendCreditUpdate
)

// outcome says what the caller does after it has let go of Conn.mu.
type outcome uint8

const (
	// hasWork: the connection wants a turn on the RX queue.
	hasWork outcome = 1 << iota
	// isDead: take the connection off the wire.
	isDead
)

// peerAllocMax bounds what we believe of the guest's bufAlloc, so that counts
// modulo 2^32 can be compared.
const peerAllocMax = 1 << 30

// Conn is the host end of a connection to a guest socket.
type Conn struct {
	mux    *mux
	local  Addr // CID 2
	remote Addr // the guest
	dialed bool // by us
	window uint32

	readMu  sync.Mutex // one Read at a time
	writeMu sync.Mutex // one Write at a time

	// readable and writable hold a token when the one Read or Write that waits
	// should look again.
	readable chan struct{}
	writable chan struct{}
	// opened is closed when a dialed connection stops connecting.
	opened chan struct{}

	mu sync.Mutex // protects what follows

	state   state
	pend    pending
	wasOpen bool
	err     error // why it is dying or dead
	closed  bool  // by Close
	timer   *time.Timer

	localShut uint32 // shutdown flags that we have sent or shall send
	peerShut  uint32 // shutdown flags of the guest

	// From the guest. A Read that waits lends its buffer in dst and gets the
	// number of bytes in dstN; the fifo is empty then.
	unread  fifo
	dst     []byte
	dstN    int
	fwdCnt  uint32 // bytes read, modulo 2^32
	fwdSent uint32 // what the guest knows of fwdCnt
	rdl     deadline

	// To the guest. A Write lends its buffer in src; what is left of it is unsent.
	src         []byte
	txCnt       uint32 // bytes sent, modulo 2^32
	peerFwd     uint32
	peerAlloc   uint32
	creditAsked bool // CREDIT_REQUEST sent, and no credit since
	wdl         deadline

	// Protected by rxq.mu.
	inTurn bool
	next   *Conn

	// Protected by mux.mu.
	onWire bool // in mux.conns
	onHost bool // Close was not called yet
}

var _ net.Conn = &Conn{}

func newConn(m *mux, k connKey, window uint32, dialed bool) *Conn {
	c := &Conn{
		mux:      m,
		local:    Addr{CID: HostCID, Port: k.host},
		remote:   Addr{CID: m.guestCID, Port: k.guest},
		dialed:   dialed,
		window:   window,
		readable: make(chan struct{}, 1),
		writable: make(chan struct{}, 1),
	}
	if dialed {
		c.pend = pendRequest
		c.opened = make(chan struct{})
	} else {
		c.state, c.wasOpen = open, true
		c.pend = pendResponse
	}
	return c
}

func (c *Conn) key() connKey { return connKey{guest: c.remote.Port, host: c.local.Port} }

// wake leaves a token for the one that waits on ch, or that will.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// setState is the only place that changes state. c.mu is held.
func (c *Conn) setState(s state) {
	if c.state == connecting {
		close(c.opened)
	}
	c.state = s
	c.wasOpen = c.wasOpen || s == open
	if s == dying || s == dead {
		wake(c.readable)
		wake(c.writable)
	}
}

// die ends the connection with an RST to the guest. c.mu is held.
func (c *Conn) die(err error) outcome {
	if c.state == dying || c.state == dead {
		return 0
	}
	c.err = err
	if c.state == connecting && c.pend&pendRequest != 0 {
		// The guest has never heard of it.
		return c.bury(err)
	}
	c.pend = 0
	c.setState(dying)
	c.arm()
	return hasWork
}

// bury ends the connection without a word to the guest. c.mu is held.
func (c *Conn) bury(err error) outcome {
	if c.state == dead {
		return 0
	}
	if c.err == nil {
		c.err = err
	}
	c.pend = 0
	c.setState(dead)
	if c.timer != nil {
		c.timer.Stop()
	}
	return isDead
}

// arm starts the clock for the guest to do its part. c.mu is held.
func (c *Conn) arm() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(c.mux.closeTimeout, c.expire)
}

// expire runs when the guest did not answer our SHUTDOWN or take our RST.
func (c *Conn) expire() {
	c.mu.Lock()
	var out outcome
	if c.state == dying {
		out = c.bury(c.err)
	} else {
		out = c.die(syscall.ETIMEDOUT)
	}
	c.mu.Unlock()
	c.mux.settle(c, out)
}

// abort is die for a caller that does not hold c.mu.
func (c *Conn) abort(err error) {
	c.mu.Lock()
	out := c.die(err)
	c.mu.Unlock()
	c.mux.settle(c, out)
}

// drop is bury for a caller that does not hold c.mu.
func (c *Conn) drop(err error) {
	c.mu.Lock()
	out := c.bury(err)
	c.mu.Unlock()
	c.mux.settle(c, out)
}
