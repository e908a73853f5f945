package vmm

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// serial is the smallest transmit-only UART: enough for earlyprintk and an
// 8250 console.
type serial struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *serial) Read(off uint64, p []byte) {
	clear(p)
	if off == 5 { // LSR: transmitter empty
		p[0] = 0x60
	}
}

func (s *serial) Write(off uint64, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off == 0 {
		s.buf.Write(p)
	}
}

func (s *serial) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// testKVM skips where there is no KVM.
func testKVM(t *testing.T) *kvm.System {
	t.Helper()
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("needs KVM: %v; or run in the lab: go test -exec bin/lab ./vmm/...", err)
	}
	t.Cleanup(func() { _ = sys.Close() })
	return sys
}

// testKernel returns the kernel named by LUCID_TEST_KERNEL or the one that the
// guest directory builds.
func testKernel(t *testing.T) boot.Kernel {
	t.Helper()
	path := os.Getenv("LUCID_TEST_KERNEL")
	if path == "" {
		path = "../guest/out/vmlinux"
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs a guest kernel: %v; build it with make guest, or set LUCID_TEST_KERNEL", err)
	}
	k, err := boot.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestKVMBootToPanic(t *testing.T) {
	sys := testKVM(t)
	mem, err := guestmem.Alloc(256 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var pio bus.Bus
	uart := &serial{}
	if err := pio.Insert(0x3f8, 8, uart); err != nil {
		t.Fatal(err)
	}
	vm, err := New(Config{
		KVM: sys, Memory: mem, VCPUs: 1, Kernel: testKernel(t), PIO: &pio,
		Cmdline: "earlyprintk=serial,ttyS0,115200 console=ttyS0 panic=-1 reboot=t",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	exit, err := vm.Run(ctx)
	t.Logf("exit %+v err %v after %v, %+v", exit, err, time.Since(vm.Marks().KernelEntry), vm.Stats())
	t.Logf("%s", uart)
	if err != nil || exit.Reason != ReasonReset || !strings.Contains(uart.String(), "Kernel panic") {
		t.Fatalf("want a panic and a reset")
	}
}
