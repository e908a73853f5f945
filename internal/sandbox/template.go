package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/vmm"
)

// How a template is made, docs/flows/template.md:
//
//	boot → agent's hello → Prepare → its control connection is closed
//	→ the agent dials again, and nobody answers: the guest is idle
//	→ pause → devices finish and freeze → memory and state are written
//
// There is no wait for a time in it: each arrow is an event.

// parts are what is saved.
type parts struct {
	vm      *vmm.VM
	mem     *guestmem.Memory
	devices []namedTransport
	sock    *vsock.Device // nil with the serial transport
}

type namedTransport struct {
	name string
	t    *mmio.Transport
}

// Names of the files of a template.
const (
	memoryFile = "memory"
	stateFile  = "state"
)

// makerMain makes a template in place of a container. It returns the exit
// status of the process.
func (s *sandbox) makerMain() int {
	err := s.makeTemplate()
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "lucid: template: %s\n", printable(err.Error()))
	return 1
}

func (s *sandbox) makeTemplate() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	launch := &s.child.Launch
	var whole oci.Plan
	if err := s.child.Plan(&whole); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	plan := &oci.Plan{VM: whole.VM}
	if plan.VM.Transport != oci.TransportVsock {
		return fmt.Errorf("%s=%s: a template can be made with %s only", oci.AnnotationTransport, plan.VM.Transport, oci.TransportVsock)
	}
	if plan.VM.DebugUART {
		return fmt.Errorf("%s: a VM with a serial port cannot be saved", oci.AnnotationDebugUART)
	}
	launch.Template = ""
	s.guestLog = newGuestLog(io.Discard, nil)
	s.c = newContainer(launch.ID, plan, s.times, s.log)
	var err error
	if s.machine, err = newMachine(launch, plan, s.guestLog, s.log); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	go func() {
		exit, err := s.machine.vm.Run(context.Background())
		lost(errVMEnded)
		s.vmEnded <- vmEnd{exit, err}
	}()
	if err := s.idle(ctx); err != nil {
		return s.explain(ctx, err)
	}
	return save(&s.machine.parts, &plan.VM, launch.MakeTemplate)
}

// idle brings the guest to where all of its clones begin.
func (s *sandbox) idle(ctx context.Context) error {
	conn, err := s.machine.link.control(ctx)
	if err != nil {
		return err
	}
	client := wire.NewClient(conn, nil)
	if _, err := client.Hello(ctx); err != nil {
		return fmt.Errorf("guest agent: %w", err)
	}
	// Before the connection ends: what comes after it is not to be answered.
	dialed := s.machine.parts.sock.Hold(wire.ControlPort)
	if err := client.Call(ctx, wire.MethodPrepare, nil, nil); err != nil {
		return err
	}
	_ = client.Close()
	select {
	case <-dialed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// save writes the files of a template into dir. The state comes last: without
// it, or when it is not whole, there is no template.
func save(p *parts, vm *oci.VM, dir string) error {
	if err := p.vm.Pause(); err != nil {
		return err
	}
	var w vmstate.Writer
	w.U32(uint32(vm.VCPUs))
	w.U64(vm.Memory)
	w.String(vm.Transport)
	state, err := p.vm.Save()
	if err != nil {
		return err
	}
	state.Encode(&w)
	w.U32(uint32(len(p.devices)))
	for _, d := range p.devices {
		s, err := d.t.Save()
		if err != nil {
			return fmt.Errorf("device %s: %w", d.name, err)
		}
		w.String(d.name)
		s.Encode(&w)
	}
	extents, err := saveMemory(p.mem, filepath.Join(dir, memoryFile))
	if err != nil {
		return err
	}
	w.U32(uint32(len(extents)))
	for _, e := range extents {
		w.Struct(e)
	}
	return vmstate.WriteFile(filepath.Join(dir, stateFile), w.Data())
}

// saveMemory writes the guest's RAM. Devices have been frozen, which was the
// last that wrote to it.
func saveMemory(mem *guestmem.Memory, path string) (_ []guestmem.Extent, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	extents, err := mem.Save(f)
	if err != nil {
		return nil, err
	}
	return extents, f.Sync()
}

// saved is the state file of a template, decoded.
type saved struct {
	vcpus     int
	memory    uint64
	transport string
	vm        *vmm.State
	devices   []savedDevice
	extents   []guestmem.Extent
}

type savedDevice struct {
	name  string
	state *mmio.State
}

// Bounds on what is decoded.
const (
	maxName    = 32
	maxDevices = vmm.MaxDevices
	extentSize = 16
)

// decodeSaved reads what save wrote.
func decodeSaved(r *vmstate.Reader) (*saved, error) {
	s := &saved{vcpus: int(r.U32()), memory: r.U64(), transport: r.String(maxName)}
	s.vm = vmm.DecodeState(r)
	s.devices = make([]savedDevice, r.Count(maxDevices, 1))
	for i := range s.devices {
		s.devices[i] = savedDevice{r.String(maxName), mmio.Decode(r)}
	}
	s.extents = make([]guestmem.Extent, r.Count(guestmem.MaxExtents, extentSize))
	for i := range s.extents {
		r.Struct(&s.extents[i])
	}
	return s, r.Done()
}

// fits says whether the template is for this machine.
func (s *saved) fits(vm *oci.VM, devices []namedTransport) error {
	switch {
	case s.vcpus != vm.VCPUs:
		return fmt.Errorf("it has %d vCPUs, not %d", s.vcpus, vm.VCPUs)
	case s.memory != vm.Memory:
		return fmt.Errorf("it has %d MiB of memory, not %d", s.memory>>20, vm.Memory>>20)
	case s.transport != vm.Transport:
		return fmt.Errorf("its transport is %q, not %q", s.transport, vm.Transport)
	case vm.DebugUART:
		return errors.New("it has no serial port (" + oci.AnnotationDebugUART + ")")
	case len(s.devices) != len(devices):
		return fmt.Errorf("it has %d devices, not %d", len(s.devices), len(devices))
	}
	for i, d := range devices {
		if s.devices[i].name != d.name {
			return fmt.Errorf("its device %d is %q, not %q", i, s.devices[i].name, d.name)
		}
	}
	return nil
}

// restoreMachine is a machine that goes on from the template in dir.
func restoreMachine(dir string, cfg vmm.Config, plan *oci.Plan, files *p9server.Server, guestOut io.Writer, log *slog.Logger) (*machine, error) {
	r, err := vmstate.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	s, err := decodeSaved(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	f, err := os.Open(filepath.Join(dir, memoryFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mem, err := guestmem.Map(f, s.memory, s.extents)
	if err != nil {
		return nil, err
	}
	m := &machine{}
	if cfg.Devices, err = m.devices(mem, plan, files, guestOut, log); err != nil {
		return nil, err
	}
	if err := s.fits(&plan.VM, m.parts.devices); err != nil {
		return nil, fmt.Errorf("%s: template of another VM: %w", dir, err)
	}
	cfg.Memory, cfg.Restore = mem, s.vm
	if m.parts.vm, err = vmm.New(cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	m.vm = m.parts.vm
	// After the VM: it is there to be interrupted.
	for i, d := range m.parts.devices {
		if err := d.t.Restore(s.devices[i].state); err != nil {
			return nil, fmt.Errorf("%s: device %s: %w", dir, d.name, err)
		}
	}
	return m, nil
}

// templateError tells the creator that it may boot instead: nothing of the
// guest has run.
func templateError(err error) error {
	return &control.Error{Kind: control.KindTemplate, Message: "template cannot be used: " + err.Error() + "; remove it and it is made anew"}
}
