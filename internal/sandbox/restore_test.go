package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm"
)

// sampleSaved is a template as far as its files go; no CPU could be in that state.
func sampleSaved() *saved {
	s := &saved{
		vcpus: 1, memory: 128 << 20, growth: growth{block: memoryBlock, vcpus: 4}, transport: oci.TransportVsock,
		vm: &vmm.State{VCPUs: []vmm.VCPUState{{
			CPUID: []kvm.CPUIDEntry{{Function: 1}}, FPU: make([]byte, 4096), LAPIC: make([]byte, 1024), MSRs: []kvm.MSR{{Index: 1, Data: 2}},
		}}},
		devices: []savedDevice{
			{"console", &mmio.State{Type: 3, Queues: []mmio.QueueState{{Num: 4, Ready: true, Desc: 1, Avail: 2, Used: 3, At: virtq.State{Next: 4, Used: 5}}}, Device: []byte("x")}},
			{"9p", &mmio.State{Type: 9, Queues: []mmio.QueueState{}, Device: []byte{}}},
		},
		extents: []guestmem.Extent{{Off: 0, Len: 4096}, {Off: 1 << 20, Len: 8192}},
		touched: []guestmem.Extent{{Off: 0, Len: 8192}},
		hot:     []guestmem.Extent{{Off: 4096, Len: 4096}},
	}
	for i := range s.vm.Chips {
		s.vm.Chips[i].ChipID = uint32(i)
	}
	return s
}

func TestSavedRoundTrip(t *testing.T) {
	s := sampleSaved()
	got, err := decodeSaved(vmstate.NewReader(s.encode()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, got) {
		t.Errorf("decoded %+v, saved %+v", got, s)
	}
}

func TestSavedShort(t *testing.T) {
	data := sampleSaved().encode()
	for n := range data {
		if _, err := decodeSaved(vmstate.NewReader(data[:n])); !errors.Is(err, vmstate.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestSavedAbsurd(t *testing.T) {
	for name, damage := range map[string]func(s *saved){
		"extent outside":  func(s *saved) { s.extents[1].Off = 128 << 20 },
		"extent wraps":    func(s *saved) { s.extents[1].Len = ^uint64(0) &^ 4095 },
		"odd extent":      func(s *saved) { s.extents[0].Off = 1 },
		"out of order":    func(s *saved) { s.extents[0], s.extents[1] = s.extents[1], s.extents[0] },
		"touched outside": func(s *saved) { s.touched[0].Off = 1 << 40 },
		"hot outside":     func(s *saved) { s.hot[0].Off = 1 << 40 },
		"odd block":       func(s *saved) { s.growth.block = 4096 },
		"many vCPUs":      func(s *saved) { s.growth.vcpus = 9 },
		"no memory":       func(s *saved) { s.memory = 0 },
		"long transport":  func(s *saved) { s.transport = strings.Repeat("x", 100) },
		"long device":     func(s *saved) { s.devices[0].name = strings.Repeat("x", 100) },
	} {
		s := sampleSaved()
		damage(s)
		if _, err := decodeSaved(vmstate.NewReader(s.encode())); !errors.Is(err, vmstate.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSavedFits(t *testing.T) {
	devices := []namedTransport{{name: "console"}, {name: "9p"}}
	vm := oci.VM{VCPUs: 1, Memory: 128 << 20, Transport: oci.TransportVsock}
	if err := sampleSaved().fits(&vm, devices); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(vm *oci.VM, d *[]namedTransport){
		"vCPUs":       func(vm *oci.VM, _ *[]namedTransport) { vm.VCPUs = 5 },
		"memory":      func(vm *oci.VM, _ *[]namedTransport) { vm.Memory /= 2 },
		"transport":   func(vm *oci.VM, _ *[]namedTransport) { vm.Transport = oci.TransportSerial },
		"serial port": func(vm *oci.VM, _ *[]namedTransport) { vm.DebugUART = true },
		"devices":     func(_ *oci.VM, d *[]namedTransport) { *d = (*d)[:1] },
		"device 1":    func(_ *oci.VM, d *[]namedTransport) { *d = []namedTransport{{name: "console"}, {name: "rng"}} },
	} {
		other, d := vm, devices
		change(&other, &d)
		if err := sampleSaved().fits(&other, d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestTemplateError: the creator can tell that it may boot instead.
func TestTemplateError(t *testing.T) {
	dir := t.TempDir()
	_, err := readSaved(dir)
	var ce *control.Error
	if !errors.As(templateError(err), &ce) || ce.Kind != control.KindTemplate || !strings.Contains(ce.Message, filepath.Join(dir, vmstate.StateFile)) {
		t.Errorf("%v", ce)
	}
	// A whole envelope with rubbish in it.
	if err := vmstate.WriteFile(filepath.Join(dir, vmstate.StateFile), []byte("rubbish")); err != nil {
		t.Fatal(err)
	}
	if _, err := readSaved(dir); !errors.Is(err, vmstate.ErrCorrupt) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(dir, vmstate.StateFile)); err != nil {
		t.Fatal(err)
	}
}

func TestHottest(t *testing.T) {
	many := make([]guestmem.Extent, guestmem.MaxExtents+10)
	for i := range many {
		many[i] = guestmem.Extent{Off: uint64(i) * 8192, Len: 4096}
	}
	if n := len(hottest(many)); n != guestmem.MaxExtents {
		t.Errorf("%d extents", n)
	}
	if n := len(hottest([]guestmem.Extent{{Len: maxHot}, {Off: maxHot, Len: 4096}})); n != 1 {
		t.Errorf("%d extents, at most %d bytes", n, maxHot)
	}
}

// TestRehearsalPlan: it names nothing of the host.
func TestRehearsalPlan(t *testing.T) {
	vm := oci.VM{VCPUs: 2, Memory: 64 << 20, Transport: oci.TransportVsock}
	p, err := rehearsal(vm)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p.VM, vm) || p.Host.Rootfs.Name != wire.RehearsalRootfs || p.Host.Rootfs.Path != "" || len(p.Host.Binds) != 0 {
		t.Errorf("%+v", p.Host)
	}
}

func FuzzSaved(f *testing.F) {
	f.Add(sampleSaved().encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSaved(vmstate.NewReader(data))
		if err == nil {
			vm := &oci.VM{VCPUs: 1, Memory: 128 << 20, Transport: s.transport}
			if s.fits(vm, nil) == nil && s.total(vm) < vm.Memory {
				t.Errorf("%d bytes of %d", s.total(vm), vm.Memory)
			}
		}
	})
}
