package vmm

import (
	"fmt"

	"github.com/lucid-containers/lucid/kvm"
)

// Ports that end the VM.
const (
	// PowerOffPort ends the VM with ReasonShutdown on any write. QEMU has its
	// ACPI power management there.
	PowerOffPort = 0x600

	resetPort  = 0x64 // i8042 command register
	resetValue = 0xfe // pulse the reset line: reboot=k

	cmosDataPort = 0x71
)

// handle does what an exit asks for. It returns false when the VM has ended.
func (v *vcpu) handle(exit *kvm.Exit) bool {
	switch exit.Reason {
	case kvm.ExitMMIO:
		v.mmio(&exit.MMIO)
	case kvm.ExitIO:
		return v.pio(&exit.IO)
	case kvm.ExitShutdown:
		// With reboot=t a triple fault is how Linux reboots, and panic=-1 reboots.
		v.vm.end(Exit{Reason: ReasonReset, Detail: "triple fault"}, nil)
		return false
	case kvm.ExitSystemEvent:
		v.systemEvent(exit.SystemEvent.Type)
		return false
	case kvm.ExitInternalError, kvm.ExitDebug:
		return v.assisted(exit)
	case kvm.ExitIRQWindowOpen:
	default:
		v.vm.crash(v.unexpected(exit))
		return false
	}
	return v.observe()
}

// observe lets the assist look at the guest after an exit that KVM meant for
// us.
func (v *vcpu) observe() bool {
	if v.assist == nil {
		return true
	}
	if err := v.assist.AfterExit(); err != nil {
		v.vm.crash(fmt.Errorf("vCPU %d: %w", v.cpu.ID(), err))
		return false
	}
	return true
}

func (v *vcpu) mmio(m *kvm.MMIOExit) {
	// Nobody there: reads are all ones (the bus fills them in), writes are lost.
	if m.Write {
		v.vm.mmio.Write(m.Addr, m.Data)
		return
	}
	v.vm.mmio.Read(m.Addr, m.Data)
}

func (v *vcpu) pio(io *kvm.IOExit) bool {
	for i := range io.Count {
		p := io.Data[i*io.Size : (i+1)*io.Size]
		if !io.Out {
			v.portRead(io.Port, p)
			continue
		}
		switch {
		case io.Port == PowerOffPort:
			v.vm.end(Exit{Reason: ReasonShutdown, Detail: "power-off port"}, nil)
			return false
		case io.Port == resetPort && p[0] == resetValue:
			v.vm.end(Exit{Reason: ReasonReset, Detail: "keyboard controller"}, nil)
			return false
		}
		if v.vm.cfg.PIO != nil {
			v.vm.cfg.PIO.Write(uint64(io.Port), p)
		}
	}
	return v.observe()
}

func (v *vcpu) portRead(port uint16, p []byte) {
	if v.vm.cfg.PIO != nil && v.vm.cfg.PIO.Read(uint64(port), p) {
		return
	}
	fill := byte(0xff)
	if port == cmosDataPort {
		// All ones says "update in progress" and makes kernels with an RTC driver
		// wait a second for its end.
		fill = 0
	}
	for i := range p {
		p[i] = fill
	}
}

func (v *vcpu) systemEvent(typ uint32) {
	switch typ {
	case kvm.SystemEventShutdown:
		v.vm.end(Exit{Reason: ReasonShutdown, Detail: "system event"}, nil)
	case kvm.SystemEventReset:
		v.vm.end(Exit{Reason: ReasonReset, Detail: "system event"}, nil)
	default:
		v.vm.crash(fmt.Errorf("vCPU %d: KVM_EXIT_SYSTEM_EVENT type %d", v.cpu.ID(), typ))
	}
}

// assisted hands an exit to the assist, and ends the VM if it does not help.
func (v *vcpu) assisted(exit *kvm.Exit) bool {
	if v.assist != nil {
		handled, err := v.assist.Exit(exit)
		if err != nil {
			v.vm.crash(fmt.Errorf("vCPU %d: %w; %s", v.cpu.ID(), err, v.registers()))
			return false
		}
		if handled {
			return true
		}
	}
	v.vm.crash(v.unexpected(exit))
	return false
}

// unexpected is the one line about an exit that nobody can handle.
func (v *vcpu) unexpected(exit *kvm.Exit) error {
	what := "unexpected exit"
	switch exit.Reason {
	case kvm.ExitFailEntry:
		what = fmt.Sprintf("the CPU refuses the guest's state (hardware reason %#x)", exit.FailEntry.Reason)
	case kvm.ExitInternalError:
		what = fmt.Sprintf("suberror %d data %#x", exit.Internal.Suberror, exit.Internal.Data[:exit.Internal.NData])
	case kvm.ExitUnknown:
		what = fmt.Sprintf("hardware reason %#x", exit.Hardware)
	}
	return fmt.Errorf("vCPU %d: KVM exit %s: %s; %s", v.cpu.ID(), exit.Reason, what, v.registers())
}
