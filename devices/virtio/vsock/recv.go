package vsock

import "syscall"

// recv does what the packet h of the guest asks for. Its payload is the bytes of
// pages after the header.
// Preconditions: h is for this connection, pages has h.len bytes of payload.
func (c *Conn) recv(h *header, pages [][]byte) outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case connecting:
		return c.recvConnecting(h)
	case open:
		return c.recvOpen(h, pages)
	case dying:
		if h.op == opReset {
			return c.bury(c.err)
		}
	}
	return 0 // our RST is on its way
}

func (c *Conn) recvConnecting(h *header) outcome {
	switch {
	case c.pend&pendRequest != 0:
		// It answers what we have not asked yet. An RST cannot be for us: it is for
		// an older connection with the same ports.
		if h.op == opReset {
			return 0
		}
		c.pend = 0 // so that die sends RST
		return c.die(syscall.EPROTO)
	case h.op == opReset:
		return c.bury(syscall.ECONNREFUSED)
	case h.op != opResponse:
		return c.die(syscall.EPROTO)
	}
	c.peerFwd, c.peerAlloc = h.fwdCnt, min(h.bufAlloc, peerAllocMax)
	if h.fwdCnt != 0 { // it cannot have read anything
		return c.die(syscall.EPROTO)
	}
	c.setState(open)
	return 0
}

func (c *Conn) recvOpen(h *header, pages [][]byte) outcome {
	if h.op == opReset {
		return c.bury(syscall.ECONNRESET)
	}
	if !c.takeCredit(h) {
		return c.die(syscall.EPROTO)
	}
	var out outcome
	switch h.op {
	case opData:
		out = c.recvData(pages, int(h.len))
	case opShutdown:
		out = c.recvShutdown(h.flags)
	case opCreditUpdate:
	case opCreditRequest:
		c.pend |= pendCreditUpdate
		out = hasWork
	default: // REQUEST, RESPONSE, unknown
		return c.die(syscall.EPROTO)
	}
	if len(c.src) > 0 && c.credit() > 0 {
		out |= hasWork
	}
	return out
}

// takeCredit believes the credit in h, and reports whether it can be true.
func (c *Conn) takeCredit(h *header) bool {
	advance := h.fwdCnt - c.peerFwd
	if int32(advance) < 0 {
		// The count went backwards. Packets of two CPUs that overtook each other
		// would look like this; what we know already is newer.
		return true
	}
	if advance > c.txCnt-c.peerFwd {
		return false // it has read what we have not sent
	}
	c.peerFwd = h.fwdCnt
	c.peerAlloc = min(h.bufAlloc, peerAllocMax)
	if c.credit() > 0 {
		c.creditAsked = false
	}
	return true
}

// credit is how many bytes we may send.
func (c *Conn) credit() uint32 {
	inFlight := c.txCnt - c.peerFwd
	if inFlight >= c.peerAlloc { // also after the guest has made its buffer smaller
		return 0
	}
	return c.peerAlloc - inFlight
}

func (c *Conn) recvData(pages [][]byte, n int) outcome {
	switch {
	case c.peerShut&shutdownSend != 0:
		return c.die(syscall.EPROTO) // it had promised to send no more
	case n > int(c.window)-c.unread.size:
		return c.die(syscall.ENOBUFS) // it had no credit for this
	case n == 0:
		return 0
	case c.localShut&shutdownReceive != 0:
		// Sent before our SHUTDOWN got there.
		c.fwdCnt += uint32(n)
		return 0
	}
	skip := headerSize
	if c.dst != nil {
		k := gather(c.dst[:min(len(c.dst), n)], pages, skip)
		c.dst, c.dstN = nil, k
		c.fwdCnt += uint32(k)
		skip, n = skip+k, n-k
		wake(c.readable)
	}
	c.unread.write(pages, skip, n)
	return c.offerCredit()
}

// offerCredit asks for a CREDIT_UPDATE when the guest could otherwise run out of
// credit although its bytes have been read.
func (c *Conn) offerCredit() outcome {
	// Half of the window: the guest can still send the other half while the update
	// travels, and a bulk stream costs us one small packet in 128 KiB.
	if c.fwdCnt-c.fwdSent < c.window/2 || c.localShut&shutdownReceive != 0 {
		return 0
	}
	c.pend |= pendCreditUpdate
	return hasWork
}

func (c *Conn) recvShutdown(flags uint32) outcome {
	c.peerShut |= flags & shutdownBoth
	wake(c.readable)
	wake(c.writable)
	if c.peerShut == shutdownBoth {
		return c.die(syscall.EPIPE)
	}
	return 0
}
