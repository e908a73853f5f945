package vsock

// dataMax bounds one RW packet, like VIRTIO_VSOCK_MAX_PKT_BUF_SIZE of Linux.
// A Linux guest offers buffers of one page, so its packets to it are smaller.
const dataMax = 64 << 10

// fill writes the next packet of the connection into pages, which have room for
// size bytes. It returns the size of the packet, 0 if there is nothing to say
// now, and whether there is more (hasWork) or will never be any (isDead).
// Preconditions: size is at least headerSize; rxq.mu is held.
func (c *Conn) fill(pages [][]byte, size int) (int, outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var op op
	var flags uint32
	switch {
	case c.state == dead:
		return 0, 0
	case c.state == dying:
		c.put(pages, opReset, 0, 0)
		return headerSize, c.bury(c.err)
	case c.pend&pendRequest != 0:
		c.pend &^= pendRequest
		op = opRequest
	case c.pend&pendResponse != 0:
		c.pend &^= pendResponse
		op = opResponse
	case c.canSend() && c.credit() > 0:
		return c.fillData(pages, size), c.more()
	case c.pend&pendShutdown != 0:
		c.pend &^= pendShutdown
		op, flags = opShutdown, c.localShut
	case c.canSend() && !c.creditAsked:
		c.creditAsked = true
		op = opCreditRequest
	case c.pend&pendCreditUpdate != 0:
		op = opCreditUpdate
	default:
		return 0, 0
	}
	c.put(pages, op, 0, flags)
	return headerSize, c.more()
}

// fillData moves bytes of the waiting Write into the guest's pages.
func (c *Conn) fillData(pages [][]byte, size int) int {
	n := min(len(c.src), size-headerSize, int(c.credit()), dataMax)
	scatter(pages, headerSize, c.src[:n])
	c.src = c.src[n:]
	c.txCnt += uint32(n)
	c.put(pages, opData, uint32(n), 0)
	if len(c.src) == 0 {
		wake(c.writable)
	}
	return headerSize + n
}

// put writes a header. Each one tells the guest our credit.
func (c *Conn) put(pages [][]byte, op op, n, flags uint32) {
	c.fwdSent = c.fwdCnt
	c.pend &^= pendCreditUpdate
	putHeader(pages, &header{
		srcCID: HostCID, dstCID: uint64(c.remote.CID),
		srcPort: c.local.Port, dstPort: c.remote.Port,
		len: n, typ: typeStream, op: op, flags: flags,
		bufAlloc: c.window, fwdCnt: c.fwdCnt,
	})
}

// canSend reports whether a Write has bytes that may still go.
func (c *Conn) canSend() bool {
	return c.state == open && len(c.src) > 0 &&
		c.localShut&shutdownSend == 0 && c.peerShut&shutdownReceive == 0
}

// more reports hasWork when fill would find another packet.
func (c *Conn) more() outcome {
	if c.pend != 0 || c.canSend() && (c.credit() > 0 || !c.creditAsked) {
		return hasWork
	}
	return 0
}
