package vsock

import "time"

// SetCloseTimeout is for tests that do not want to wait for 8 seconds.
func (d *Device) SetCloseTimeout(t time.Duration) { d.mux.closeTimeout = t }

// Count says what the device counts: connections on the wire, connections
// against the limits, and bytes of Config.Buffer not given to a window.
func (d *Device) Count() (wire, guest, host, spare int) {
	m := &d.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns), m.fromGuest, m.fromHost, m.spare
}

// Buffered is how many bytes of the connection nobody has read.
func (c *Conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unread.size
}

// Window is the buffer that the connection offers.
func (c *Conn) Window() int { return int(c.window) }

// Line is how many connections wait for their turn on the RX queue.
func (d *Device) Line() int {
	d.mux.rx.mu.Lock()
	defer d.mux.rx.mu.Unlock()
	n := 0
	for c := d.mux.rx.first; c != nil; c = c.next {
		n++
	}
	return n
}
