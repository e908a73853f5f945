package console_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

func TestNewRefuses(t *testing.T) {
	for name, ports := range map[string][]string{
		"empty":  {""},
		"twice":  {"a", "a"},
		"long":   {strings.Repeat("x", 65)},
		"many":   strings.Split(strings.Repeat("x", 31), ""),
		"many 2": make([]string, 31),
	} {
		if _, err := console.New(console.Config{Ports: ports}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNegotiation follows the order that virtio_console.c needs.
func TestNegotiation(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"lucid.control", "lucid.streams"}})
	if id := g.drv.Get32(virtqtest.RegDeviceID); id != 3 {
		t.Fatalf("device id %d", id)
	}
	if n := binary.LittleEndian.Uint32(g.drv.Config(4, 4)); n != 3 {
		t.Fatalf("max_nr_ports %d, want 3", n)
	}
	if g.drv.Queues() != 8 {
		t.Fatalf("%d queues, want 8", g.drv.Queues())
	}
	host := mustPort(t, g.dev, "lucid.streams")
	g.send(0, deviceReady, 1)
	g.expect(message{0, portAdd, 1, ""}, message{1, portAdd, 1, ""}, message{2, portAdd, 1, ""})
	g.send(0, portReady, 1)
	g.expect(message{0, consolePort, 1, ""}, message{0, portOpen, 1, ""})
	g.send(1, portReady, 1)
	g.expect(message{1, portName, 1, "lucid.control"})
	g.send(2, portReady, 1)
	g.expect(message{2, portName, 1, "lucid.streams"}, message{2, portOpen, 1, ""})
	// The host end of port 1 comes later; that of port 2 goes and comes back.
	mustPort(t, g.dev, "lucid.control")
	g.expect(message{1, portOpen, 1, ""})
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	g.expect(message{2, portOpen, 0, ""})
	mustPort(t, g.dev, "lucid.streams")
	g.expect(message{2, portOpen, 1, ""})
}

func TestPortErrors(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a"}})
	if _, err := g.dev.Port("b"); err == nil {
		t.Error("opened a port that does not exist")
	}
	h := mustPort(t, g.dev, "a")
	if _, err := g.dev.Port("a"); err == nil {
		t.Error("opened a port twice")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, err := h.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := h.Write(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
}

func TestConsoleOutput(t *testing.T) {
	var log bytes.Buffer
	g := boot(t, console.Config{Output: &log})
	q := g.drv.Queue(1)
	for _, s := range []string{"hello ", "world\x00\xff"} {
		q.Send([]byte(s))
	}
	q.Add(q.Out([]byte("a")), q.Out([]byte("b")), q.Out(bytes.Repeat([]byte("c"), 10000)))
	q.Kick()
	q.WaitUsed()
	if err := g.dev.Close(); err != nil {
		t.Fatal(err)
	}
	if want := "hello world\x00\xffab" + strings.Repeat("c", 10000); log.String() != want {
		t.Fatalf("log of %d bytes, want %d", log.Len(), len(want))
	}
}

// TestConsoleStuckOutput: a log that nobody reads must not stop the guest, and a
// reset must not wait for it.
func TestConsoleStuckOutput(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	g := boot(t, console.Config{Output: w, OutputSize: 1024})
	q := g.drv.Queue(1)
	buf := q.Out(bytes.Repeat([]byte("x"), 64<<10))
	within(t, "console output", func() {
		for range 200 {
			q.Add(buf)
			q.Kick()
			q.WaitUsed()
		}
	})
	begin := time.Now()
	g.drv.Reset()
	if d := time.Since(begin); d > mmio.ResetWait/2 {
		t.Fatalf("reset took %v", d)
	}
}

// TestConsoleWithoutMultiport is a driver that knows only queues 0 and 1.
func TestConsoleWithoutMultiport(t *testing.T) {
	var log bytes.Buffer
	g := boot(t, console.Config{Output: &log, Ports: []string{"a"}})
	g.drv.StartWith(virtqtest.FeatureVersion1)
	g.drv.Queue(1).Send([]byte("plain"))
	g.drv.Reset()
	_ = g.dev.Close()
	if log.String() != "plain" {
		t.Fatalf("log %q", log.String())
	}
}

// TestHostileControl sends nonsense and never takes an answer.
func TestHostileControl(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a"}})
	before := runtime.NumGoroutine()
	for i := range 1000 {
		g.send(uint32(i%4)-1, uint16(i%9), uint16(i%3))
	}
	for _, p := range [][]byte{nil, {1}, make([]byte, 7), make([]byte, 9), make([]byte, 5000)} {
		q := g.drv.Queue(3)
		q.Add(q.Out(p), q.In(8))
		q.Kick()
		q.WaitUsed()
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Fatalf("%d goroutines, %d before", n, before)
	}
	if s := g.drv.Status(); s&virtqtest.StatusNeedsReset != 0 {
		t.Fatalf("status %#x", s)
	}
}

func TestSmallControlBuffer(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a"}})
	g.drv.Start(console.FeatureMultiport)
	q := g.drv.Queue(2)
	q.Add(q.In(4))
	q.Kick()
	tx := g.drv.Queue(3)
	tx.Add(tx.Out([]byte{0, 0, 0, 0, deviceReady, 0, 1, 0}))
	tx.Kick() // and no wait: a failed device answers nothing
	g.drv.WaitNeedsReset()
}

func TestMalformedTx(t *testing.T) {
	g, host, _, tx := opened(t)
	tx.Add(virtqtest.Buf{Addr: virtqtest.HoleAddr, Len: 10})
	tx.Kick()
	g.drv.WaitNeedsReset()
	g.drv.Reset()
	within(t, "Read", func() {
		if _, err := host.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read: %v", err)
		}
	})
}

func TestGoroutinesFlat(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a", "b"}})
	before := runtime.NumGoroutine()
	for range 30 {
		g.start()
	}
	time.Sleep(5 * time.Millisecond)
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Fatalf("%d goroutines, %d before", n, before)
	}
}
