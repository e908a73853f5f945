package console_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtqtest"
)

const (
	deviceReady = 0
	portAdd     = 1
	portReady   = 3
	consolePort = 4
	portOpen    = 6
	portName    = 7
)

const page = 4096

// guest plays Linux's virtio_console.c against a device.
type guest struct {
	t   testing.TB
	dev *console.Device
	tr  *mmio.Transport
	drv *virtqtest.Driver
}

type message struct {
	id           uint32
	event, value uint16
	name         string
}

// boot starts the driver and posts the buffers of the control queue.
func boot(t testing.TB, cfg console.Config) *guest {
	t.Helper()
	dev, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mem := virtqtest.NewGuest(t)
	tr, err := mmio.New(mmio.Config{Device: dev, Mem: mem.Mem})
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, tr: tr, drv: virtqtest.NewDriver(t, mem, tr, tr.IRQ())}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		_ = dev.Close()
	})
	g.start()
	return g
}

func (g *guest) start() {
	g.t.Helper()
	g.drv.Start(console.FeatureMultiport)
	g.fill(2, 16)
}

func (g *guest) fill(queue, n int) {
	g.t.Helper()
	q := g.drv.Queue(queue)
	for range n {
		q.Add(q.In(page))
	}
	q.Kick()
}

// send sends a control message and spins until it is used, as Linux does.
func (g *guest) send(id uint32, event, value uint16) {
	g.t.Helper()
	p := binary.LittleEndian.AppendUint32(nil, id)
	p = binary.LittleEndian.AppendUint16(p, event)
	p = binary.LittleEndian.AppendUint16(p, value)
	g.drv.Queue(3).Send(p)
}

func (g *guest) receive() message {
	g.t.Helper()
	q := g.drv.Queue(2)
	u := q.WaitUsed()
	p := q.Data(u)
	if len(p) < 8 {
		g.t.Fatalf("control message of %d bytes", len(p))
	}
	q.Add(u.Bufs...)
	q.Kick()
	return message{
		binary.LittleEndian.Uint32(p),
		binary.LittleEndian.Uint16(p[4:]), binary.LittleEndian.Uint16(p[6:]), string(p[8:]),
	}
}

func (g *guest) expect(want ...message) {
	g.t.Helper()
	for _, w := range want {
		if got := g.receive(); got != w {
			g.t.Fatalf("control message %+v, want %+v", got, w)
		}
	}
}

// port brings a port up to the state after Linux's add_port.
func (g *guest) port(id int) (rx, tx *virtqtest.Queue) {
	g.t.Helper()
	g.send(0, deviceReady, 1)
	for i := range uint32(2) {
		g.expect(message{id: i, event: portAdd, value: 1})
	}
	g.fill(2+2*id, 64)
	g.send(uint32(id), portReady, 1)
	return g.drv.Queue(2 + 2*id), g.drv.Queue(3 + 2*id)
}

func mustPort(t testing.TB, dev *console.Device, name string) console.Port {
	t.Helper()
	p, err := dev.Port(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// opened brings up a device with one port open on both ends.
func opened(t testing.TB) (g *guest, host console.Port, rx, tx *virtqtest.Queue) {
	t.Helper()
	g = boot(t, console.Config{Ports: []string{"lucid.control"}})
	host = mustPort(t, g.dev, "lucid.control")
	rx, tx = g.port(1)
	g.expect(
		message{1, portName, 1, "lucid.control"},
		message{1, portOpen, 1, ""},
	)
	g.send(1, portOpen, 1)
	return g, host, rx, tx
}

// within fails the test if f does not end soon.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(virtqtest.Timeout):
		t.Fatalf("%s: blocked", what)
	}
}

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

func TestBothWays(t *testing.T) {
	_, host, rx, tx := opened(t)
	go func() {
		for i := range 100 {
			_, _ = host.Write(bytes.Repeat([]byte{byte(i)}, 10+i))
		}
	}()
	var got []byte
	for want := 100*10 + 99*100/2; len(got) < want; {
		u := rx.WaitUsed()
		got = append(got, rx.Data(u)...)
		rx.Add(u.Bufs...)
		rx.Kick()
	}
	for i, at := 0, 0; i < 100; i++ {
		if !bytes.Equal(got[at:at+10+i], bytes.Repeat([]byte{byte(i)}, 10+i)) {
			t.Fatalf("write %d arrived wrong", i)
		}
		at += 10 + i
	}
	for i := range 100 {
		want := bytes.Repeat([]byte{byte(i)}, 1+i)
		tx.Add(tx.Out(want))
		tx.Kick()
		p := make([]byte, 1+i)
		within(t, "Read", func() {
			if _, err := io.ReadFull(host, p); err != nil {
				t.Error(err)
			}
		})
		if !bytes.Equal(p, want) {
			t.Fatalf("read %x, want %x", p, want)
		}
		tx.WaitUsed()
	}
}

// TestBulk pushes megabytes both ways at once through small and odd buffers.
func TestBulk(t *testing.T) {
	_, host, rx, tx := opened(t)
	const size = 8 << 20
	data := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	var wg sync.WaitGroup
	wg.Go(func() { // host writes
		for at := 0; at < size; {
			n, err := host.Write(data[at:min(size, at+100_003)])
			if err != nil {
				t.Error(err)
				return
			}
			at += n
		}
	})
	wg.Go(func() { // host reads
		got := make([]byte, size)
		if _, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("guest to host: %v", err)
		}
	})
	wg.Go(func() { // guest writes chunks of up to 32 KiB, as Linux does
		bufs := make([]virtqtest.Buf, 8)
		for i := range bufs {
			bufs[i] = tx.Out(make([]byte, 32<<10))
		}
		flying := 0
		for at, i := 0, 0; at < size; i++ {
			if flying == len(bufs) {
				tx.WaitUsed()
				flying--
			}
			b := bufs[i%len(bufs)]
			n := min(size-at, 1+i*37%len(data)%(32<<10))
			if err := tx.Mem.WriteAt(data[at:at+n], b.Addr); err != nil {
				t.Error(err)
			}
			tx.Add(virtqtest.Buf{Addr: b.Addr, Len: uint32(n)})
			tx.Kick()
			at, flying = at+n, flying+1
		}
	})
	got := make([]byte, 0, size)
	for len(got) < size {
		u := rx.WaitUsed()
		got = append(got, rx.Data(u)...)
		rx.Add(u.Bufs...)
		rx.Kick()
	}
	wg.Wait()
	if !bytes.Equal(got, data) {
		t.Error("host to guest: wrong data")
	}
}

// TestSlowReader: what the host does not read stays un-pushed.
func TestSlowReader(t *testing.T) {
	_, host, _, tx := opened(t)
	for range 64 {
		tx.Add(tx.Out([]byte("abcd")))
	}
	tx.ForceKick()
	tx.NoUsed(30 * time.Millisecond)
	p := make([]byte, 6)
	if _, err := io.ReadFull(host, p); err != nil || string(p) != "abcdab" {
		t.Fatalf("read %q, %v", p, err)
	}
	tx.WaitUsed()
	tx.NoUsed(10 * time.Millisecond) // the second chain is half read
	p = make([]byte, 4*64-6)
	if _, err := io.ReadFull(host, p); err != nil {
		t.Fatal(err)
	}
	for range 63 {
		tx.WaitUsed()
	}
}

// TestSlowGuest: a Write waits for buffers, and each way out of the wait works.
func TestSlowGuest(t *testing.T) {
	fillUp := func(t *testing.T) (g *guest, host console.Port, result <-chan error) {
		g, host, rx, _ := opened(t)
		done := make(chan error, 1)
		go func() {
			_, err := host.Write(make([]byte, 65*page))
			done <- err
		}()
		for rx.UsedIdx() != 64 {
			time.Sleep(time.Millisecond)
		}
		select {
		case err := <-done:
			t.Fatalf("Write ended without room: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		return g, host, done
	}
	wait := func(t *testing.T, result <-chan error) error {
		t.Helper()
		select {
		case err := <-result:
			return err
		case <-time.After(virtqtest.Timeout):
			t.Fatal("Write still blocked")
			return nil
		}
	}
	t.Run("guest makes room", func(t *testing.T) {
		g, _, result := fillUp(t)
		rx := g.drv.Queue(4)
		u := rx.WaitUsed()
		rx.Add(u.Bufs...)
		rx.Kick()
		if err := wait(t, result); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("guest closes", func(t *testing.T) {
		g, _, result := fillUp(t)
		g.send(1, portOpen, 0)
		if err := wait(t, result); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	})
	t.Run("guest resets", func(t *testing.T) {
		g, _, result := fillUp(t)
		g.drv.Reset()
		if err := wait(t, result); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	})
	t.Run("host closes", func(t *testing.T) {
		_, host, result := fillUp(t)
		_ = host.Close()
		if err := wait(t, result); !errors.Is(err, os.ErrClosed) {
			t.Fatal(err)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		g, _, result := fillUp(t)
		rx := g.drv.Queue(4)
		rx.SetAvailIdx(rx.AvailIdx() + 1000)
		rx.ForceKick()
		if err := wait(t, result); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		g.drv.WaitNeedsReset()
	})
}

// TestGuestCloses: data, then one EOF per close, then the next session.
func TestGuestCloses(t *testing.T) {
	g, host, _, tx := opened(t)
	for i := range 3 {
		tx.Add(tx.Out([]byte("last words")))
		tx.Kick()
		g.send(1, portOpen, 0)
		g.send(1, portOpen, 0) // twice is once
		within(t, "Read", func() {
			p, err := io.ReadAll(host)
			if err != nil || string(p) != "last words" {
				t.Errorf("session %d: read %q, %v", i, p, err)
			}
		})
		got := make(chan byte, 1)
		go func() {
			var p [1]byte
			_, _ = host.Read(p[:])
			got <- p[0]
		}()
		select {
		case <-got:
			t.Fatal("Read did not wait for the next open")
		case <-time.After(10 * time.Millisecond):
		}
		g.send(1, portOpen, 1)
		tx.Add(tx.Out([]byte("!")))
		tx.Kick()
		within(t, "Read after reopen", func() {
			if b := <-got; b != '!' {
				t.Errorf("read %q", b)
			}
		})
	}
}

func TestWriteWaitsForOpen(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a"}})
	host := mustPort(t, g.dev, "a")
	done := make(chan error, 1)
	go func() {
		_, err := host.Write([]byte("early"))
		done <- err
	}()
	rx, _ := g.port(1)
	rx.NoUsed(20 * time.Millisecond)
	g.send(1, portOpen, 1)
	if got := rx.Data(rx.WaitUsed()); string(got) != "early" {
		t.Fatalf("guest read %q", got)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestHostCloseUnblocksRead(t *testing.T) {
	_, host, _, tx := opened(t)
	done := make(chan error, 1)
	go func() {
		_, err := host.Read(make([]byte, 1))
		done <- err
	}()
	time.Sleep(5 * time.Millisecond)
	_ = host.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	// With no host end, what the guest sends is thrown away and not held.
	tx.Send([]byte("nobody"))
}

// TestReset: pending data goes, readers get EOF, and the port works again.
func TestReset(t *testing.T) {
	g, host, _, tx := opened(t)
	for range 5 {
		tx.Add(tx.Out([]byte("lost")))
		tx.Kick()
		time.Sleep(time.Millisecond)
		g.drv.Reset()
		within(t, "Read", func() {
			if n, err := host.Read(make([]byte, 10)); err != io.EOF {
				t.Errorf("Read = %d, %v, want EOF", n, err)
			}
		})
		g.start()
		_, tx = g.port(1)
		g.expect(message{1, portName, 1, "lucid.control"}, message{1, portOpen, 1, ""})
		g.send(1, portOpen, 1)
		tx.Add(tx.Out([]byte("hello")))
		tx.Kick()
		p := make([]byte, 5)
		within(t, "Read", func() { _, _ = io.ReadFull(host, p) })
		if string(p) != "hello" {
			t.Fatalf("read %q after reset", p)
		}
	}
}

// TestHostileControl sends nonsense and never takes an answer.
func TestHostileControl(t *testing.T) {
	g := boot(t, console.Config{Ports: []string{"a"}})
	before := runtime.NumGoroutine()
	for i := range 5000 {
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

func BenchmarkGuestToHost(b *testing.B) {
	_, host, _, tx := opened(b)
	const chunk = 32 << 10
	bufs := make([]virtqtest.Buf, 16)
	for i := range bufs {
		bufs[i] = tx.Out(make([]byte, chunk))
	}
	go func() { _, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{host}, make([]byte, 256<<10)) }()
	b.SetBytes(chunk)
	b.ReportAllocs()
	i := 0
	for ; b.Loop(); i++ {
		if i >= len(bufs) {
			tx.WaitUsed()
		}
		tx.Add(bufs[i%len(bufs)])
		tx.Kick()
	}
}

func BenchmarkHostToGuest(b *testing.B) {
	_, host, rx, _ := opened(b)
	const chunk = 64 << 10
	go func() {
		for p := make([]byte, chunk); ; {
			if _, err := host.Write(p); err != nil {
				return
			}
		}
	}()
	b.SetBytes(chunk)
	b.ReportAllocs()
	for b.Loop() {
		for got := 0; got < chunk; {
			u := rx.WaitUsed()
			got += int(u.Written)
			rx.Add(u.Bufs...)
			rx.Kick()
		}
	}
	_ = host.Close()
}
