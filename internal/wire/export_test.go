package wire

import "time"

// NewListenerPatience is NewListener with another time for the handshake.
func NewListenerPatience(accept func() (Stream, error), d time.Duration) *Listener {
	return newListener(accept, d)
}
