package virtq

import "fmt"

// Chain is one request of the driver: buffers to read, then buffers to write.
// It is valid until Push, which takes it back for reuse.
type Chain struct {
	head     uint16
	readable int      // how many of iov are device-readable
	iov      [][]byte // host views of guest pages, none of them empty
	rlen     uint64
	wlen     uint64
}

// Head is the index of the first descriptor, the driver's name for the request.
func (c *Chain) Head() uint16 { return c.head }

// Readable returns the device-readable buffers in order. They alias guest
// memory: what they hold may change between two looks at it. The caller may
// reslice the elements until Push.
func (c *Chain) Readable() [][]byte { return c.iov[:c.readable:c.readable] }

// Writable returns the device-writable buffers in order, like Readable.
func (c *Chain) Writable() [][]byte { return c.iov[c.readable:] }

// ReadableLen is the sum of the lengths of the readable buffers as popped.
func (c *Chain) ReadableLen() uint64 { return c.rlen }

// WritableLen is the sum of the lengths of the writable buffers as popped.
func (c *Chain) WritableLen() uint64 { return c.wlen }

// ReadAt copies from offset off of the readable bytes into p and returns how
// many there were.
func (c *Chain) ReadAt(p []byte, off uint64) int {
	n := 0
	for _, b := range c.Readable() {
		if off >= uint64(len(b)) {
			off -= uint64(len(b))
			continue
		}
		n += copy(p[n:], b[off:])
		off = 0
		if n == len(p) {
			break
		}
	}
	return n
}

// WriteAt copies p to offset off of the writable bytes and returns how many
// fitted.
func (c *Chain) WriteAt(p []byte, off uint64) int {
	n := 0
	for _, b := range c.Writable() {
		if off >= uint64(len(b)) {
			off -= uint64(len(b))
			continue
		}
		n += copy(b[off:], p[n:])
		off = 0
		if n == len(p) {
			break
		}
	}
	return n
}

func (c *Chain) reset(head uint16) {
	clear(c.iov) // the views must not outlive the request
	*c = Chain{head: head, iov: c.iov[:0]}
}

// walk follows the descriptors from head into c. Each descriptor is loaded once
// and checked as loaded (virtio 1.2 §2.7.4.2, §2.7.5, §2.7.5.3).
func (q *Queue) walk(c *Chain, head uint16) error {
	t, i, ttl, indirect := q.ring.desc, uint32(head), uint32(q.ring.size), false
	for {
		if i >= t.n {
			return fmt.Errorf("%w: %d of %d", ErrIndex, i, t.n)
		}
		if ttl == 0 {
			return fmt.Errorf("%w: from descriptor %d", ErrLoop, head)
		}
		ttl--
		d := t.load(i)
		if d.flags&DescFIndirect != 0 {
			if indirect {
				return fmt.Errorf("%w: nested", ErrIndirect)
			}
			inner, err := q.indirectTable(d)
			if err != nil {
				return err
			}
			t, i, ttl, indirect = inner, 0, inner.n, true
			continue
		}
		if err := q.addBuffer(c, d); err != nil {
			return err
		}
		if d.flags&DescFNext == 0 {
			return nil
		}
		i = uint32(d.next)
	}
}

func (q *Queue) indirectTable(d descriptor) (table, error) {
	limit := max(uint32(q.ring.size), MaxIndirect)
	switch {
	case !q.indirect:
		return table{}, fmt.Errorf("%w: not negotiated", ErrIndirect)
	case d.flags&DescFNext != 0:
		return table{}, fmt.Errorf("%w: has a next", ErrIndirect)
	case d.len == 0 || d.len%DescSize != 0 || d.len/DescSize > limit:
		return table{}, fmt.Errorf("%w: table of %d bytes", ErrIndirect, d.len)
	}
	host, err := q.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return table{}, fmt.Errorf("%w: %w", ErrIndirect, err)
	}
	return newTable(host), nil
}

func (q *Queue) addBuffer(c *Chain, d descriptor) error {
	host, err := q.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAddr, err)
	}
	if d.flags&DescFWrite != 0 {
		c.wlen += uint64(d.len)
	} else {
		if c.wlen != 0 {
			return ErrOrder
		}
		c.rlen += uint64(d.len)
	}
	if c.rlen+c.wlen > maxTotal {
		return ErrTotal
	}
	if d.len == 0 {
		return nil // nothing to read or write there
	}
	if d.flags&DescFWrite == 0 {
		c.readable++
	}
	c.iov = append(c.iov, host)
	return nil
}
