package vsock_test

import (
	"context"
	"net"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/devices/virtio/vsock/vsocktest"
)

const port = 1024

func newDevice(t testing.TB) *vsock.Device {
	t.Helper()
	d, err := vsock.New(vsock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// pair is one open connection, made by the guest.
func pair(t testing.TB) (host *vsock.Conn, guest *vsocktest.Conn) {
	t.Helper()
	dev := newDevice(t)
	s := vsocktest.NewStack(vsocktest.NewGuest(t, dev))
	return connect(t, dev, s)
}

func connect(t testing.TB, dev *vsock.Device, s *vsocktest.Stack) (*vsock.Conn, *vsocktest.Conn) {
	t.Helper()
	l, err := dev.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	guest, err := s.Dial(l.Addr().(vsock.Addr).Port)
	if err != nil {
		t.Fatal(err)
	}
	host, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return host.(*vsock.Conn), guest
}

// TestConn is the conformance suite of x/net. Both ends take the part of the
// first connection, which is the one that is tested harder, and both sides dial.
func TestConn(t *testing.T) {
	pipe := func(t *testing.T, dialed, swap bool) nettest.MakePipe {
		return func() (net.Conn, net.Conn, func(), error) {
			dev := newDevice(t)
			g := vsocktest.NewGuest(t, dev)
			s := vsocktest.NewStack(g)
			var host, guest net.Conn
			if dialed {
				accept := s.Listen(port)
				c, err := dev.Dial(context.Background(), port)
				if err != nil {
					return nil, nil, nil, err
				}
				host, guest = c, <-accept
			} else {
				host, guest = connect(t, dev, s)
			}
			stop := func() {
				_ = host.Close()
				_ = guest.Close()
				g.Stop()
			}
			if swap {
				host, guest = guest, host
			}
			return host, guest, stop, nil
		}
	}
	t.Run("GuestDials", func(t *testing.T) { nettest.TestConn(t, pipe(t, false, false)) })
	t.Run("HostDials", func(t *testing.T) { nettest.TestConn(t, pipe(t, true, false)) })
	t.Run("Swapped", func(t *testing.T) { nettest.TestConn(t, pipe(t, false, true)) })
}
