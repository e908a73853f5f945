package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/internal/wire"
)

// link is how the agent reaches us. Both kinds give the same channels.
type link interface {
	// control waits for the agent's control channel. It is called once.
	control(ctx context.Context) (io.ReadWriteCloser, error)
	// streams is where the agent opens streams.
	streams() wire.Expecter
}

// vsockLink: the agent dials two ports.
type vsockLink struct {
	ctl net.Listener
	str *wire.Listener
}

func newVsockLink(d *vsock.Device) (link, error) {
	ctl, err := d.Listen(wire.ControlPort)
	if err != nil {
		return nil, err
	}
	str, err := d.Listen(wire.StreamPort)
	if err != nil {
		return nil, err
	}
	accept := func() (wire.Stream, error) {
		c, err := str.Accept()
		if err != nil {
			return nil, err
		}
		s, ok := c.(wire.Stream)
		if !ok {
			return nil, fmt.Errorf("vsock connection %T cannot close one direction", c)
		}
		return s, nil
	}
	return &vsockLink{ctl: ctl, str: wire.NewListener(accept)}, nil
}

// control takes the first connection and no other: the agent dials before
// there is a container, whose processes could dial too.
func (l *vsockLink) control(ctx context.Context) (io.ReadWriteCloser, error) {
	defer context.AfterFunc(ctx, func() { _ = l.ctl.Close() })()
	c, err := l.ctl.Accept()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	_ = l.ctl.Close()
	return c, nil
}

func (l *vsockLink) streams() wire.Expecter { return l.str }

// serialLink: two ports of the virtio console, as Clear Containers did it.
type serialLink struct {
	ctl io.ReadWriteCloser
	mux *wire.Mux
}

func newSerialLink(d *console.Device) (link, error) {
	ctl, err := d.Port(wire.ControlPortName)
	if err != nil {
		return nil, err
	}
	str, err := d.Port(wire.StreamPortName)
	if err != nil {
		return nil, err
	}
	return &serialLink{ctl: ctl, mux: wire.NewMux(str)}, nil
}

func (l *serialLink) control(context.Context) (io.ReadWriteCloser, error) { return l.ctl, nil }
func (l *serialLink) streams() wire.Expecter                              { return l.mux }

// consoleConfig has the named ports only when they are the link.
func consoleConfig(out io.Writer, serial bool) console.Config {
	cfg := console.Config{Output: out}
	if serial {
		cfg.Ports = []string{wire.ControlPortName, wire.StreamPortName}
	}
	return cfg
}
