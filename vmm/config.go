package vmm

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/internal/eventfd"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// Places in guest-physical memory, all in the hole between 3 and 4 GiB.
const (
	// Device i has its virtio-mmio window at DeviceBase + i*DeviceStride.
	DeviceBase   = 0xd0000000
	DeviceStride = 0x1000
	deviceSize   = 0x200 // virtio 1.2 §4.2.2: registers to 0xff, configuration from 0x100

	// Device i raises interrupt line FirstGSI + i. 0 to 4 belong to the timer,
	// the cascade and the UARTs.
	FirstGSI   = 5
	MaxDevices = boot.IOAPICPins - FirstGSI

	// virtio 1.2 §4.2.2, QueueNotify: a 32-bit write of the queue number.
	queueNotify = 0x50

	// KVM wants four pages that no RAM covers (api.rst, KVM_SET_TSS_ADDR,
	// KVM_SET_IDENTITY_MAP_ADDR).
	identityMapAddr = 0xfffbc000
	tssAddr         = 0xfffbd000

	// MaxVCPUs is what the MP table holds.
	MaxVCPUs = boot.MaxVCPUs
)

// AssistMode says whether vmm/assist looks after this VM.
type AssistMode int

// The zero value detects what the back-end lacks and helps there only.
const (
	AssistAuto AssistMode = iota
	AssistOff
	AssistOn // as if everything were missing, for tests
)

// Device is one virtio-mmio device as the VM sees it.
type Device struct {
	Name    string
	Handler bus.Handler   // the window; QueueNotify too if KVM has no ioeventfd
	Kicks   []*eventfd.FD // kick of each queue, by queue number
	IRQ     *eventfd.FD   // signalled by the device to raise its interrupt
}

// Config describes a VM. Memory, VCPUs, and Kernel or Restore are required.
type Config struct {
	// KVM is the back-end. nil: New opens /dev/kvm and Close closes it.
	KVM *kvm.System
	// NewVM returns a new VM of KVM, which becomes this VM's. nil: KVM.CreateVM.
	NewVM func() (*kvm.VM, error)
	// Memory is the guest's RAM, zeroed or that of a saved VM. It stays the caller's, who closes it
	// after the VM.
	Memory *guestmem.Memory
	// VCPUs is the number of virtual CPUs, 1 to MaxVCPUs.
	VCPUs int
	// PossibleVCPUs is how many the guest is told of: those from VCPUs on are
	// missing, and a restored guest may find them there. 0: VCPUs. A kernel that
	// boots needs maxcpus=VCPUs then.
	PossibleVCPUs int
	// Kernel starts on vCPU 0. It stays the caller's.
	Kernel boot.Kernel
	// Restore is a saved VM that goes on, in place of Kernel, Initrd and
	// Cmdline. Memory holds its RAM, and Devices are the same in the same order.
	// There may be more Memory behind it, and more vCPUs: they wait until the
	// guest starts them, as after a boot.
	Restore *State
	// Initrd is the guest's initramfs. Nil: none.
	Initrd *io.SectionReader
	// Cmdline is the kernel command line; New puts what announces the devices
	// before it.
	Cmdline string
	// Devices get their windows and interrupt lines in this order.
	Devices []Device
	// PIO serves port I/O. nil: nobody there. Ports 0x64 (reset) and PowerOffPort
	// are the VM's own.
	PIO *bus.Bus
	// Assist: zero value detects.
	Assist AssistMode
	// Log gets a handful of lines per VM. nil: silent.
	Log *slog.Logger
}

func (c *Config) check() error {
	switch {
	case c.Memory == nil:
		return fmt.Errorf("vmm: no guest memory")
	case c.VCPUs < 1 || c.VCPUs > MaxVCPUs:
		return fmt.Errorf("vmm: %d vCPUs, want 1 to %d", c.VCPUs, MaxVCPUs)
	case c.PossibleVCPUs != 0 && (c.PossibleVCPUs < c.VCPUs || c.PossibleVCPUs > MaxVCPUs):
		return fmt.Errorf("vmm: %d possible vCPUs, want %d to %d", c.PossibleVCPUs, c.VCPUs, MaxVCPUs)
	case len(c.Devices) > MaxDevices:
		return fmt.Errorf("vmm: %d devices, at most %d have an interrupt line", len(c.Devices), MaxDevices)
	}
	for i, d := range c.Devices {
		if d.Handler == nil || d.IRQ == nil {
			return fmt.Errorf("vmm: device %d (%s) lacks a handler or an interrupt", i, d.Name)
		}
	}
	if c.PossibleVCPUs == 0 {
		c.PossibleVCPUs = c.VCPUs
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// needs resolves the assist mode.
func (c *Config) needs(sys *kvm.System) (assist.Needs, error) {
	switch c.Assist {
	case AssistOff:
		return assist.Needs{}, nil
	case AssistOn:
		return assist.Needs{Emulation: true, Syscall: true}, nil
	}
	return assist.Detect(sys)
}
