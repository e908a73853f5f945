package vmm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lucid-containers/lucid/devices/bus"
	"github.com/lucid-containers/lucid/kvm"
	"github.com/lucid-containers/lucid/vmm/assist"
	"github.com/lucid-containers/lucid/vmm/boot"
)

// VM is one virtual machine.
type VM struct {
	cfg    Config
	sys    *kvm.System
	vm     *kvm.VM
	vcpus  []*vcpu
	mmio   bus.Bus
	assist *assist.VM // nil when the back-end lacks nothing

	created  time.Time
	restored bool                      // in place of booted
	entered  atomic.Pointer[time.Time] // just before the first KVM_RUN; nil before

	// goal is what the vCPUs should do. It changes under mu and is read without:
	// each vCPU looks at it after every kick.
	goal atomic.Int32

	mu     sync.Mutex
	moved  *sync.Cond // goal, live or parked changed
	live   int        // vCPU goroutines that have not returned
	parked int        // of these, how many wait in parked
	ran    bool
	result *result // how it ended; the first one counts
}

type result struct {
	exit Exit
	err  error
}

// Values of VM.goal.
const (
	goalRun int32 = iota
	goalPause
	goalStop
)

// New builds a VM up to the point where vCPU 0 stands at the kernel's entry, or
// all of them where they were saved. Nothing of the guest runs before Run.
func New(cfg Config) (*VM, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	vm := &VM{cfg: cfg, sys: cfg.KVM}
	vm.moved = sync.NewCond(&vm.mu)
	if err := vm.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("vmm: %w", err), vm.Close())
	}
	// They are in the guest. An unpacked kernel is tens of MiB that the caller
	// may want to let go of.
	vm.cfg.Kernel, vm.cfg.Initrd, vm.cfg.Restore = boot.Kernel{}, nil, nil
	return vm, nil
}

func (vm *VM) build() (err error) {
	if vm.sys == nil {
		if vm.sys, err = kvm.Open(); err != nil {
			return err
		}
	}
	for _, r := range vm.sys.Missing() {
		if r.Required {
			return fmt.Errorf("this KVM lacks %s (%s)", r.Name, r.Why)
		}
	}
	needs, err := vm.cfg.needs(vm.sys)
	if err != nil {
		return err
	}
	create := vm.cfg.NewVM
	if create == nil {
		create = vm.sys.CreateVM
	}
	if vm.vm, err = create(); err != nil {
		return err
	}
	vm.created = time.Now()
	leaves, err := guestCPUID(vm.sys)
	if err != nil {
		return err
	}
	if needs.Any() {
		vm.assist = assist.New(assist.Config{
			Needs: needs, Memory: vm.cfg.Memory, CPUID: leaves, Log: vm.cfg.Log, KickAll: vm.kickAll,
		})
		vm.cfg.Log.Info("KVM back-end needs help", "missing", needs.String())
	}
	if err := vm.setupMachine(); err != nil {
		return err
	}
	if err := vm.attachDevices(); err != nil {
		return err
	}
	if vm.cfg.Restore != nil {
		return vm.restore(needs, leaves)
	}
	entry, err := boot.Load(vm.cfg.Memory, vm.cfg.Kernel, boot.Params{
		Cmdline: vm.cmdline(needs), Initrd: vm.cfg.Initrd, VCPUs: vm.cfg.PossibleVCPUs,
	})
	if err != nil {
		return err
	}
	if err := vm.createVCPUs(leaves); err != nil {
		return err
	}
	return setEntry(vm.vcpus[0].cpu, entry)
}

// setupMachine makes interrupt controllers and memory. There is no PIT: Linux
// takes its clock from kvm-clock and its timer from the local APIC.
func (vm *VM) setupMachine() error {
	if err := vm.vm.SetTSSAddr(tssAddr); err != nil {
		return err
	}
	if vm.sys.CheckExtension(kvm.CapSetIdentityMapAddr) > 0 {
		if err := vm.vm.SetIdentityMapAddr(identityMapAddr); err != nil {
			return err
		}
	}
	if err := vm.vm.CreateIRQChip(); err != nil {
		return err
	}
	if vm.assist != nil {
		if err := vm.vm.EnableCap(kvm.CapExitOnEmulationFailure, 1); err != nil {
			return fmt.Errorf("the back-end cannot run a kernel and does not say where it fails: %w", err)
		}
	}
	for slot, r := range vm.cfg.Memory.Regions() {
		err := vm.vm.SetMemoryRegion(kvm.MemoryRegion{Slot: uint32(slot), Guest: r.Addr, Host: r.Host})
		if err != nil {
			return fmt.Errorf("guest memory at %#x: %w", r.Addr, err)
		}
	}
	return nil
}

// attachDevices does the three things that make a virtio-mmio device: a window
// on the bus, an ioeventfd per queue, an irqfd.
func (vm *VM) attachDevices() error {
	kicks := vm.sys.CheckExtension(kvm.CapIOEventFD) > 0
	for i, d := range vm.cfg.Devices {
		base := uint64(DeviceBase + i*DeviceStride)
		if err := vm.mmio.Insert(base, deviceSize, d.Handler); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
		if err := vm.vm.IRQFD(d.IRQ.FD(), uint32(FirstGSI+i)); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
		for q, kick := range d.Kicks {
			if !kicks {
				break // the handler sees the write and signals the kick itself
			}
			err := vm.vm.IOEventFD(kvm.IOEvent{
				Addr: base + queueNotify, Len: 4, Match: true, Value: uint64(q), FD: kick.FD(),
			})
			if err != nil {
				return fmt.Errorf("device %s, queue %d: %w", d.Name, q, err)
			}
		}
	}
	return nil
}

// cmdline announces the devices (Documentation/admin-guide/kernel-parameters.txt,
// "virtio_mmio.device="). They come first because what follows "--" would go
// to init.
func (vm *VM) cmdline(needs assist.Needs) string {
	var words []string
	for i := range vm.cfg.Devices {
		words = append(words, fmt.Sprintf("virtio_mmio.device=%#x@%#x:%d", deviceSize, DeviceBase+i*DeviceStride, FirstGSI+i))
	}
	if rest := needs.Cmdline(vm.cfg.Cmdline); rest != "" {
		words = append(words, rest)
	}
	return strings.Join(words, " ")
}

func (vm *VM) createVCPUs(leaves []kvm.CPUIDEntry) error {
	for id := range vm.cfg.VCPUs {
		cpu, err := vm.vm.CreateVCPU(id)
		if err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
		v := &vcpu{vm: vm, cpu: cpu}
		vm.vcpus = append(vm.vcpus, v) // nobody else has vm yet
		if err := cpu.SetCPUID(topology(leaves, id, vm.cfg.PossibleVCPUs)); err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
		if vm.assist != nil {
			v.assist = vm.assist.VCPU(cpu)
		}
	}
	return nil
}

// Close frees what New made. Preconditions: Run has returned, or was never
// called.
func (vm *VM) Close() error {
	vm.mu.Lock()
	vcpus := vm.vcpus
	vm.vcpus = nil
	vm.mu.Unlock()
	var errs []error
	for _, v := range vcpus {
		errs = append(errs, v.cpu.Close())
	}
	if vm.vm != nil {
		errs = append(errs, vm.vm.Close())
		vm.vm = nil
	}
	if vm.sys != nil && vm.cfg.KVM == nil {
		errs = append(errs, vm.sys.Close())
		vm.sys = nil
	}
	return errors.Join(errs...)
}
