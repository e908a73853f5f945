package sandbox

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lucid-containers/lucid/devices/virtio/mmio"
	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/vmm"
)

// saved is the state file of a template, decoded.
type saved struct {
	vcpus     int
	memory    uint64
	growth    growth
	transport string
	vm        *vmm.State
	devices   []savedDevice
	extents   []guestmem.Extent // of the memory file
	touched   []guestmem.Extent // what every clone reads or writes at its start
	hot       []guestmem.Extent // what it writes
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

	// maxHot bounds what a clone gets before it asks: pages that it may not
	// write after all are its own all the same.
	maxHot = 8 << 20
)

// hottest takes the pages up to maxHot.
func hottest(all []guestmem.Extent) []guestmem.Extent {
	n := uint64(0)
	for i, e := range all {
		if n += e.Len; n > maxHot || i == guestmem.MaxExtents {
			return all[:i]
		}
	}
	return all
}

// encode is what decodeSaved reads.
func (s *saved) encode() []byte {
	var w vmstate.Writer
	w.U32(uint32(s.vcpus))
	w.U64(s.memory)
	w.U64(s.growth.block)
	w.U32(uint32(s.growth.vcpus))
	w.String(s.transport)
	s.vm.Encode(&w)
	w.U32(uint32(len(s.devices)))
	for _, d := range s.devices {
		w.String(d.name)
		d.state.Encode(&w)
	}
	for _, list := range [][]guestmem.Extent{s.extents, s.touched, s.hot} {
		w.U32(uint32(len(list)))
		for _, e := range list {
			w.Struct(e)
		}
	}
	return w.Data()
}

// decodeSaved reads what encode wrote.
func decodeSaved(r *vmstate.Reader) (*saved, error) {
	s := &saved{vcpus: int(r.U32()), memory: r.U64()}
	s.growth = growth{block: r.U64(), vcpus: int(r.U32())}
	s.growth.check(r)
	s.transport = r.String(maxName)
	s.vm = vmm.DecodeState(r)
	s.devices = make([]savedDevice, r.Count(maxDevices, 1))
	for i := range s.devices {
		s.devices[i] = savedDevice{r.String(maxName), mmio.Decode(r)}
	}
	for _, list := range []*[]guestmem.Extent{&s.extents, &s.touched, &s.hot} {
		*list = make([]guestmem.Extent, r.Count(guestmem.MaxExtents, extentSize))
		for i := range *list {
			(*list)[i] = guestmem.Extent{Off: r.U64(), Len: r.U64()}
		}
		if err := guestmem.CheckExtents(s.memory, *list); err != nil {
			r.Fail("%w", err)
		}
	}
	return s, r.Done()
}

// fits says whether the template is for this machine.
func (s *saved) fits(vm *oci.VM, devices []namedTransport) error {
	switch {
	case vm.VCPUs < s.vcpus || vm.VCPUs > max(s.vcpus, s.growth.vcpus):
		return fmt.Errorf("it has %d vCPUs and may have %d, not %d", s.vcpus, s.growth.vcpus, vm.VCPUs)
	case vm.Memory < s.memory || vm.Memory > s.memory && s.growth.block == 0:
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

// readSaved reads the state of the template in dir.
func readSaved(dir string) (*saved, error) {
	path := filepath.Join(dir, vmstate.StateFile)
	r, err := vmstate.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := decodeSaved(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// fromTemplate is a machine that goes on from the template in dir. Another process
// may put a new template there at any time: state and memory must be of one.
func fromTemplate(dir string, cfg vmm.Config, plan *oci.Plan, files *p9server.Server, guestOut io.Writer, log *slog.Logger) (*machine, error) {
	before, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	state, err := readSaved(dir)
	if err != nil {
		return nil, err
	}
	m, err := restoreMachine(dir, state, cfg, plan, files, guestOut, log)
	if err != nil {
		return nil, err
	}
	if after, err := os.Stat(dir); err == nil && !os.SameFile(before, after) {
		return nil, fmt.Errorf("%s: it was replaced meanwhile", dir)
	}
	return m, nil
}

// restoreMachine is a machine that goes on from the template in dir with the
// state s.
func restoreMachine(dir string, s *saved, cfg vmm.Config, plan *oci.Plan, files *p9server.Server, guestOut io.Writer, log *slog.Logger) (*machine, error) {
	f, err := os.Open(filepath.Join(dir, vmstate.MemoryFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mem, err := guestmem.Map(f, s.memory, s.total(&plan.VM), s.extents)
	if err != nil {
		return nil, err
	}
	fetched := make(chan struct{})
	go func() {
		mem.Prefetch(s.hot) // while the VM is made, if there is a second CPU
		close(fetched)
	}()
	m := &machine{files: files}
	if cfg.Devices, err = m.devices(mem, plan, files, guestOut, log); err != nil {
		return nil, err
	}
	if err := s.fits(&plan.VM, m.parts.devices); err != nil {
		return nil, fmt.Errorf("%s: template of another VM: %w", dir, err)
	}
	cfg.Memory, cfg.Restore, cfg.PossibleVCPUs = mem, s.vm, oci.MaxVCPUs
	m.growth = s.grow(&plan.VM)
	if m.parts.vm, err = vmm.New(cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	m.vm = m.parts.vm
	<-fetched
	// After the fetch: what the guest will write is mapped for writing.
	if err := m.parts.vm.PreFault(s.touched); err != nil {
		log.Debug("guest memory is not mapped ahead", "error", err)
	}
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
