package vsock_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/devices/virtio/vsock/vsocktest"
)

// front serves f on a Unix socket and returns a function that connects to it.
func front(t *testing.T, f *vsock.Front) func() *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(virtqtest.Timeout):
			t.Error("Serve does not end")
		}
	})
	return func() *net.UnixConn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(virtqtest.Timeout))
		t.Cleanup(func() { _ = c.Close() })
		return c.(*net.UnixConn)
	}
}

func TestFront(t *testing.T) {
	dev := newDevice(t)
	s := vsocktest.NewStack(vsocktest.NewGuest(t, dev))
	accept := s.Listen(port)
	dial := front(t, &vsock.Front{Dialer: dev})
	before := runtime.NumGoroutine()
	c := dial()
	want := strings.Repeat("to the guest ", 10000)
	// What follows the line belongs to the guest, also in the same segment.
	go func() { _, _ = fmt.Fprintf(c, "CONNECT %d\n%s", port, want); _ = c.CloseWrite() }()
	guest := <-accept
	got, err := io.ReadAll(guest)
	if string(got) != want || err != nil {
		t.Errorf("guest got %d bytes, %v; want %d", len(got), err, len(want))
	}
	if _, err := guest.Write([]byte("to the client")); err != nil {
		t.Fatal(err)
	}
	_ = guest.Close()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	var host uint32
	if n, _ := fmt.Sscanf(line, "OK %d\n", &host); n != 1 || host < 1<<30 || err != nil {
		t.Errorf("answer %q, %v", line, err)
	}
	if rest, err := io.ReadAll(r); string(rest) != "to the client" || err != nil {
		t.Errorf("client got %q, %v", rest, err)
	}
	_ = c.Close()
	waitGoroutines(t, before)
	if wire, _, n, _ := dev.Count(); wire != 0 || n != 0 {
		t.Errorf("%d on the wire, %d counted", wire, n)
	}
}

func TestFrontRefuses(t *testing.T) {
	dev := newDevice(t)
	vsocktest.NewStack(vsocktest.NewGuest(t, dev))
	dial := front(t, &vsock.Front{Dialer: dev, Timeout: 200 * time.Millisecond})
	for _, line := range []string{
		"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT 4294967296\n", "CONNECT 1 2\n", "GET / HTTP/1.1\r\n\r\n",
		"CONNECT 1\n", // nobody there
		strings.Repeat("A", 31) + "\n", string(bytes.Repeat([]byte{'A'}, 1<<20)),
		"CONNECT 1024", // and then nothing: the timeout
	} {
		c := dial()
		go func() { _, _ = io.WriteString(c, line) }()
		if p, _ := io.ReadAll(c); len(p) != 0 {
			t.Errorf("%.40q is answered %q", line, p)
		}
	}
}

func TestFrontLimit(t *testing.T) {
	dev := newDevice(t)
	s := vsocktest.NewStack(vsocktest.NewGuest(t, dev))
	accept := s.Listen(port)
	dial := front(t, &vsock.Front{Dialer: dev, MaxClients: 1})
	first := dial()
	_, _ = fmt.Fprintf(first, "connect %d\n", port)
	if line, err := bufio.NewReader(first).ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("answer %q, %v", line, err)
	}
	second := dial()
	if p, _ := io.ReadAll(second); len(p) != 0 {
		t.Errorf("the second client gets %q", p)
	}
	// The end of Serve, in Cleanup, must close the first, which reads from the guest
	// only by then.
	_ = first.CloseWrite()
	if p, err := io.ReadAll(<-accept); len(p) != 0 || err != nil {
		t.Errorf("guest got %q, %v", p, err)
	}
}
