package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/devices/virtio/vsock"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/vmm"
)

// How a template is made, docs/flows/template.md:
//
//	boot → agent's hello → Prepare → its control connection is closed
//	→ the agent dials again, and nobody answers: its programs have nothing to do
//	→ its kernel has finished what it does later (quiet)
//	→ pause → devices finish and freeze → memory and state are written

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

// makerMain makes a template in place of a container. It returns the exit
// status of the process.
func (s *sandbox) makerMain(early *earlyVM) int {
	err := s.makeTemplate(early)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "lucid: template: %s\n", printable(err.Error()))
	return 1
}

func (s *sandbox) makeTemplate(early *earlyVM) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	launch := &s.child.Launch
	whole, err := planOf(launch)
	if err != nil {
		return err
	}
	plan, err := rehearsal(whole.VM)
	if err != nil {
		return err
	}
	if plan.VM.Transport != oci.TransportVsock {
		return fmt.Errorf("%s=%s: a template can be made with %s only", oci.AnnotationTransport, plan.VM.Transport, oci.TransportVsock)
	}
	if plan.VM.DebugUART {
		return fmt.Errorf("%s: a VM with a serial port cannot be saved", oci.AnnotationDebugUART)
	}
	launch.Template = ""
	s.guestLog = newGuestLog(io.Discard, nil)
	s.c = newContainer(launch.ID, plan, s.times, s.log)
	if s.machine, err = newMachine(early, launch, plan, s.guestLog, s.log); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	ctx, lost := s.runVM(ctx)
	defer lost(nil)
	prepared, err := s.idle(ctx)
	if err != nil {
		return s.explain(ctx, err)
	}
	state, err := save(&s.machine.parts, &plan.VM, launch.MakeTemplate)
	if err != nil {
		return err
	}
	if state.growth = growthOf(prepared); !state.growth.whole() {
		s.log.Info("this guest kernel takes no more memory or vCPUs than it booted with: a template for each size", "block", prepared.MemoryBlock, "vcpus", prepared.VCPUs)
		if err := os.WriteFile(filepath.Join(launch.MakeTemplate, vmstate.FixedFile), nil, 0o600); err != nil {
			return err
		}
	}
	if err := s.tryOut(ctx, state, plan); err != nil {
		return fmt.Errorf("the template was made and does not work: %w", err)
	}
	// Last: without this file, or when it is not whole, there is no template.
	return vmstate.WriteFile(filepath.Join(launch.MakeTemplate, vmstate.StateFile), state.encode())
}

// tryOut runs a first clone, which shows that the template works, and learns
// from it which pages clones touch.
func (s *sandbox) tryOut(ctx context.Context, state *saved, plan *oci.Plan) error {
	first := &sandbox{
		child: s.child, log: s.log, times: s.times, guestLog: s.guestLog, vmEnded: make(chan vmEnd, 1),
		c: newContainer(s.c.id, plan, s.times, s.log),
	}
	var err error
	if first.machine, err = openMachine(startVM(), &s.child.Launch, plan, s.guestLog, s.log, state); err != nil {
		return err
	}
	first.c.vm = first.machine.vm
	first.machine.parts.mem.Apart(state.extents)
	ctx, lost := first.runVM(ctx)
	defer lost(nil)
	defer first.machine.vm.Stop()
	if err := first.meetAgent(ctx); err != nil {
		return first.explain(ctx, err)
	}
	if err := first.rehearse(ctx); err != nil {
		return first.explain(ctx, err)
	}
	if err := first.machine.vm.Pause(); err != nil {
		return err
	}
	touched, written, err := first.machine.parts.mem.Touched()
	if err != nil {
		return err
	}
	state.touched, state.hot = touched[:min(len(touched), guestmem.MaxExtents)], hottest(written)
	return nil
}

// idle brings the guest to where all of its clones begin.
func (s *sandbox) idle(ctx context.Context) (*wire.Prepared, error) {
	if err := s.meetAgent(ctx); err != nil {
		return nil, err
	}
	if err := s.rehearse(ctx); err != nil {
		return nil, err
	}
	// Before the connection ends: what comes after it is not to be answered.
	dialed := s.machine.parts.sock.Hold(wire.ControlPort)
	prepared := new(wire.Prepared)
	if err := s.c.client.Call(ctx, wire.MethodPrepare, nil, prepared); err != nil {
		return nil, err
	}
	_ = s.c.client.Close()
	select {
	case <-dialed:
		return prepared, quiet(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Bounds of quiet: this process, with the guest in it, takes less than that much
// CPU time in one look, and is given so many of them to get there.
const (
	quietLook  = 500 * time.Millisecond
	quietCPU   = 25 * time.Millisecond // software KVM takes up to 20 for a guest that is idle
	quietLooks = 20
)

// quiet waits until the guest does nothing any more. When a container has gone,
// its kernel takes namespaces and cgroup apart on its own, some grace periods
// later, and every clone would do that again if it were saved undone. No event
// tells the end of it.
func quiet(ctx context.Context) error {
	last, err := cpuTime()
	for range quietLooks {
		if err != nil {
			return err
		}
		select {
		case <-time.After(quietLook):
		case <-ctx.Done():
			return ctx.Err()
		}
		var now time.Duration
		if now, err = cpuTime(); now-last < quietCPU {
			return err
		}
		last = now
	}
	return nil // it would be a template all the same
}

// cpuTime is what this process has used, guests included.
func cpuTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// save stops the VM for good and writes its memory into dir.
func save(p *parts, vm *oci.VM, dir string) (*saved, error) {
	if err := p.vm.Pause(); err != nil {
		return nil, err
	}
	s := &saved{vcpus: vm.VCPUs, memory: vm.Memory, transport: vm.Transport}
	var err error
	if s.vm, err = p.vm.Save(); err != nil {
		return nil, err
	}
	for _, d := range p.devices {
		state, err := d.t.Save()
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", d.name, err)
		}
		s.devices = append(s.devices, savedDevice{d.name, state})
	}
	s.extents, err = saveMemory(p.mem, filepath.Join(dir, vmstate.MemoryFile))
	return s, err
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
