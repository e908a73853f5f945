package sandbox

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/devices/uart"
	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/balloon"
	"github.com/lucid-containers/lucid/devices/virtio/console"
	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/ninep"
	"github.com/lucid-containers/lucid/devices/virtio/rng"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/guest"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/vmm"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// uartPort is the first PC serial port (COM1).
const (
	uartPort = 0x3f8
	uartSize = 8
)

// machine is the VM and its devices. It is never taken apart: the process
// that owns it ends, and the host's kernel does that faster.
type machine struct {
	vm      runner
	link    link
	console io.Closer // writes out what the guest has printed, in bounded time
	parts   parts
	files   *p9server.Server
	growth  *wire.Grow // what the guest has to take into use; nil after a boot
}

// runner is what is used of a vmm.VM once it is built.
type runner interface {
	Run(ctx context.Context) (vmm.Exit, error)
	Stop()
	Pause() error
	Resume() error
	Stats() vmm.Stats
	Marks() vmm.Marks
}

// newMachine builds everything; nothing of the guest runs yet. What it
// opened before an error ends with the process.
func newMachine(early *earlyVM, launch *control.Launch, plan *oci.Plan, guestOut io.Writer, log *slog.Logger) (*machine, error) {
	return openMachine(early, launch, plan, guestOut, log, nil)
}

// openMachine is newMachine. With a state, the machine goes on from that and
// the memory in launch.MakeTemplate.
func openMachine(early *earlyVM, launch *control.Launch, plan *oci.Plan, guestOut io.Writer, log *slog.Logger, state *saved) (*machine, error) {
	// First, so that a host without KVM hears about that and nothing else.
	if early.err != nil {
		return nil, early.err
	}
	mountPoints(plan, log)
	files, err := newFiles(plan, log)
	if err != nil {
		return nil, err
	}
	cfg := vmm.Config{KVM: early.sys, NewVM: early.wait, VCPUs: plan.VM.VCPUs, Log: log}
	if plan.VM.DebugUART {
		cfg.PIO = new(bus.Bus)
		if err := cfg.PIO.Insert(uartPort, uartSize, uart.New(uart.Config{Out: guestOut})); err != nil {
			return nil, err
		}
	}
	if state != nil {
		return restoreMachine(launch.MakeTemplate, state, cfg, plan, files, guestOut, log)
	}
	if launch.Template != "" {
		m, err := fromTemplate(launch.Template, cfg, plan, files, guestOut, log)
		if err != nil {
			return nil, templateError(err)
		}
		return m, nil
	}
	return bootMachine(launch, cfg, plan, files, guestOut, log)
}

// bootMachine stands at the kernel's entry.
func bootMachine(launch *control.Launch, cfg vmm.Config, plan *oci.Plan, files *p9server.Server, guestOut io.Writer, log *slog.Logger) (*machine, error) {
	kernel, err := boot.Open(launch.Kernel)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	file, initrd, err := boot.OpenInitrd(launch.Initramfs)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	defer file.Close()
	mem, err := guestmem.Alloc(plan.VM.Memory)
	if err != nil {
		return nil, fmt.Errorf("guest memory: %w", err)
	}
	m := &machine{files: files}
	if cfg.Devices, err = m.devices(mem, plan, files, guestOut, log); err != nil {
		return nil, err
	}
	words := cmdline(plan, launch.Debug)
	if launch.MakeTemplate != "" {
		cfg.PossibleVCPUs = oci.MaxVCPUs
		words += " " + strings.Join(guest.TemplateWords(plan.VM.VCPUs), " ")
	}
	cfg.Memory, cfg.Kernel, cfg.Initrd, cfg.Cmdline = mem, kernel, initrd, words
	if m.parts.vm, err = vmm.New(cfg); err != nil {
		return nil, err
	}
	m.vm = m.parts.vm
	return m, nil
}

// newFiles is the 9P server with the container's exports and no more.
func newFiles(plan *oci.Plan, log *slog.Logger) (*p9server.Server, error) {
	var exports []p9server.Export
	if plan.Host.Rootfs.Name != wire.RehearsalRootfs && !plan.Placeholder { // that is in the guest, this has none
		exports = append(exports, export(plan.Host.Rootfs, &plan.VM))
	}
	for i, b := range plan.Host.Binds {
		shared := func(earlier oci.Bind) bool { return earlier.Name == b.Name }
		if !slices.ContainsFunc(plan.Host.Binds[:i], shared) {
			exports = append(exports, export(b.Export, &plan.VM))
		}
	}
	s, err := p9server.New(p9server.Config{Exports: exports, Log: log})
	if err != nil {
		return nil, fmt.Errorf("file server: %w", err)
	}
	return s, nil
}

// session is a 9P session as the device sees it.
type session struct{ *p9server.Session }

// Accept implements ninep.Session.
func (s session) Accept(req [][]byte) ninep.Request { return s.Session.Accept(req) }

// export is one of the VM's. A guest that caches nothing is one whose files the host changes too: what both append goes to the
// end of the file, wherever the guest takes that to be. With write-back it would go wrong (p9server.Export).
func export(e oci.Export, vm *oci.VM) p9server.Export {
	return p9server.Export{Name: e.Name, Root: e.Path, ReadOnly: e.ReadOnly, HostAppend: vm.Cache == oci.CacheNone}
}

// devices makes the virtio devices, each behind its transport, and the link.
func (m *machine) devices(mem *guestmem.Memory, plan *oci.Plan, files *p9server.Server, guestOut io.Writer, log *slog.Logger) ([]vmm.Device, error) {
	type named struct {
		name string
		dev  virtio.Device
	}
	serial := plan.VM.Transport == oci.TransportSerial
	cons, err := console.New(consoleConfig(guestOut, serial))
	if err != nil {
		return nil, err
	}
	share, err := ninep.New(ninep.Config{
		Tag: wire.ShareTag, NewSession: func() ninep.Session { return session{files.NewSession()} },
	})
	if err != nil {
		return nil, err
	}
	m.console = cons
	list := []named{{"console", cons}, {"9p", share}, {"rng", rng.New()}, {"balloon", balloon.New()}}
	if serial {
		m.link, err = newSerialLink(cons)
	} else {
		var sock *vsock.Device
		if sock, err = vsock.New(vsock.Config{}); err == nil {
			list = append(list, named{"vsock", sock})
			m.parts.sock = sock
			m.link, err = newVsockLink(sock)
		}
	}
	if err != nil {
		return nil, err
	}
	m.parts.mem = mem
	var out []vmm.Device
	for _, n := range list {
		t, err := mmio.New(mmio.Config{Device: n.dev, Mem: mem, Log: log.With("device", n.name)})
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", n.name, err)
		}
		m.parts.devices = append(m.parts.devices, namedTransport{n.name, t})
		out = append(out, vmm.Device{Name: n.name, Handler: t, Kicks: t.Kicks(), IRQ: t.IRQ()})
	}
	return out, nil
}

// cmdline is the guest kernel's. vmm puts the devices before it.
func cmdline(plan *oci.Plan, debug bool) string {
	words := guest.Cmdline()
	if plan.VM.DebugUART {
		words = append(words, "earlyprintk=serial,ttyS0,115200", "ignore_loglevel")
	}
	words = append(words, guest.AgentWords(plan.VM.VCPUs, plan.VM.Transport)...)
	if debug {
		words = append(words, "lucid.debug")
	}
	return strings.Join(append(words, plan.VM.KernelParams...), " ")
}
