package vsock_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	guestvsock "github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/guest/initramfs"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm"
	"github.com/lucid-containers/lucid/vmm/assist"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// TestMain is also the init of the guest that TestGuest boots.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		guestMain()
	}
	os.Exit(m.Run())
}

// Ports of the guest test, on the host unless they say otherwise.
const (
	portReady  = 1024 // the guest is up
	portBulk   = 1025 // the guest sends pattern and wants it back
	portNobody = 1026
	portSlow   = 1027 // the host sends many small messages before the guest reads
	portEcho   = 2048 // on the guest: echoes until EOF, then says bye
	portReset  = 2049 // on the guest: closes with bytes unread

	bulk      = 4 << 20
	smallMsgs = 1200
	smallSize = 200 // above what Linux copies together (GOOD_COPY_LEN, 128)
)

// guestMain is PID 1. The first line that it writes to the ready connection is
// the verdict.
func guestMain() {
	defer func() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }()
	ready, err := guestvsock.Dial(vsock.HostCID, portReady, nil)
	if err != nil {
		println("guest: ", err.Error())
		return
	}
	verdict := "ok\n"
	if err := guestTests(); err != nil {
		verdict = err.Error() + "\n"
	}
	_, _ = ready.Write([]byte(verdict))
	_ = ready.CloseWrite()
	_, _ = io.Copy(io.Discard, ready) // until the host has read it
}

func guestTests() error {
	serve(portEcho, func(c *guestvsock.Conn) {
		_, _ = io.Copy(c, c)
		_, _ = c.Write([]byte("bye"))
	})
	serve(portReset, func(c *guestvsock.Conn) { _, _ = io.ReadFull(c, make([]byte, 1)) })

	if _, err := guestvsock.Dial(vsock.HostCID, portNobody, nil); !errors.Is(err, unix.ECONNRESET) {
		return errors.New("connect to nobody: want ECONNRESET")
	}
	slow, err := guestvsock.Dial(vsock.HostCID, portSlow, nil)
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	n, err := io.Copy(io.Discard, slow)
	if n != smallMsgs*smallSize || err != nil {
		return errors.Join(errors.New("small messages are missing"), err)
	}
	_ = slow.Close()

	c, err := guestvsock.Dial(vsock.HostCID, portBulk, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	want := pattern()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the echo differs")
	}
	return nil
}

func serve(port uint32, f func(*guestvsock.Conn)) {
	l, err := guestvsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	if err != nil {
		println("guest: ", err.Error())
		return
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				f(c.(*guestvsock.Conn))
			}()
		}
	}()
}

func pattern() []byte {
	p := make([]byte, bulk)
	for i := range p {
		p[i] = byte(i * 7 >> 3)
	}
	return p
}

// TestGuest runs the device against the driver of a Linux guest.
func TestGuest(t *testing.T) {
	dev := newDevice(t)
	ready, err := dev.Listen(portReady)
	if err != nil {
		t.Fatal(err)
	}
	answer(t, dev, portBulk, func(c net.Conn) { _, _ = io.Copy(c, c) })
	answer(t, dev, portSlow, func(c net.Conn) {
		for range smallMsgs {
			if _, err := c.Write(make([]byte, smallSize)); err != nil {
				t.Errorf("small message: %v", err)
				return
			}
		}
	})
	log := bootGuest(t, dev)
	verdict := make(chan error, 1)
	go func() { verdict <- hostTests(dev, ready) }()
	select {
	case err := <-verdict:
		if err != nil {
			t.Errorf("%v\n%s", err, log())
		}
	case <-time.After(3 * time.Minute):
		t.Fatalf("the guest does not answer\n%s", log())
	}
	for end := time.Now().Add(10 * time.Second); dev.Stats().FromGuest+dev.Stats().FromHost != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("connections left: %+v", dev.Stats())
		}
	}
}

func answer(t *testing.T, dev *vsock.Device, port uint32, f func(net.Conn)) {
	t.Helper()
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			_ = c.(*vsock.Conn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
}

// hostTests is the host's half.
func hostTests(dev *vsock.Device, ready net.Listener) error {
	r, err := ready.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	verdict, err := io.ReadAll(r)
	if err != nil || string(verdict) != "ok\n" {
		return errors.Join(errors.New("guest says "+string(verdict)), err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := dev.Dial(ctx, portNobody); !errors.Is(err, syscall.ECONNREFUSED) {
		return errors.Join(errors.New("dial nobody: want ECONNREFUSED"), err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() { errs <- echo(ctx, dev) })
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	c, e := dev.Dial(ctx, portReset)
	if e != nil {
		return errors.Join(err, e)
	}
	defer func() { _ = c.Close() }()
	for e == nil { // until the guest has closed
		_, e = c.Write(make([]byte, 1000))
	}
	if !errors.Is(e, syscall.EPIPE) && !errors.Is(e, syscall.ECONNRESET) {
		err = errors.Join(err, e)
	}
	return err
}

func echo(ctx context.Context, dev *vsock.Device) error {
	c, err := dev.Dial(ctx, portEcho)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	want := pattern()[:bulk/8]
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.(*vsock.Conn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if !bytes.Equal(got, append(want, "bye"...)) {
		err = errors.Join(err, errors.New("the guest's echo differs"))
	}
	return errors.Join(err, <-sent)
}

// bootGuest runs this test binary as the init of a VM, and returns what its
// console says.
func bootGuest(t *testing.T, dev *vsock.Device) func() string {
	t.Helper()
	path := os.Getenv("LUCID_TEST_KERNEL")
	if path == "" {
		path = "../../../guest/out/vmlinux"
	}
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("needs KVM: %v; or run in the lab: go test -exec bin/lab ./devices/virtio/vsock/", err)
	}
	defer sys.Close()
	needs, err := assist.Detect(sys)
	if err != nil {
		t.Fatal(err)
	}
	if needs.Emulation {
		t.Skip("boots Linux, which this KVM interprets; runs in the lab")
	}
	kernel, err := boot.Open(path)
	if err != nil {
		t.Skipf("needs a guest kernel: %v; build it with make kernel, or set LUCID_TEST_KERNEL", err)
	}
	t.Cleanup(func() { _ = kernel.Close() })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var initrd bytes.Buffer
	if err := initramfs.Write(&initrd, initramfs.Agent(self)); err != nil {
		t.Fatal(err)
	}
	mem, err := guestmem.Alloc(256 << 20)
	if err != nil {
		t.Fatal(err)
	}
	out := &lockedBuffer{}
	cons, err := console.New(console.Config{Output: out})
	if err != nil {
		t.Fatal(err)
	}
	var devices []vmm.Device
	for _, cfg := range []mmio.Config{{Device: cons, Mem: mem}, {Device: dev, Mem: mem}} {
		tr, err := mmio.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tr.Close() })
		devices = append(devices, vmm.Device{Name: "virtio", Handler: tr, Kicks: tr.Kicks(), IRQ: tr.IRQ()})
	}
	vm, err := vmm.New(vmm.Config{
		Memory: mem, VCPUs: 1, Kernel: kernel, Initrd: io.NewSectionReader(bytes.NewReader(initrd.Bytes()), 0, int64(initrd.Len())), Devices: devices,
		Cmdline: "console=hvc0 reboot=t panic=-1 no_timer_check tsc=reliable",
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		exit, err := vm.Run(context.Background())
		t.Logf("VM: %+v, %v", exit, err)
	}()
	t.Cleanup(func() {
		vm.Stop()
		<-ended
		_ = vm.Close()
	})
	return out.String
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
