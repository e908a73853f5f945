package vmm

import (
	"math/bits"
	"slices"

	"github.com/lucid-containers/lucid/kvm"
)

// CPUID leaves that New changes (Intel SDM volume 2, CPUID; AMD APM volume 3,
// appendix E).
const (
	leafFeatures  = 0x1
	leafCache     = 0x4
	leafExtended  = 0x7
	leafTopology  = 0xb
	leafXSave     = 0xd
	leafTopology2 = 0x1f
	leafAMDSize   = 0x80000008
	leafAMDTopo   = 0x8000001e

	ecxTSCDeadline = 1 << 24 // leaf 1
	ecxOSXSAVE     = 1 << 27 // leaf 1: CR4.OSXSAVE
	ecxOSPKE       = 1 << 4  // leaf 7: CR4.PKE
	ecxHypervisor  = 1 << 31 // leaf 1
	edxAPIC        = 1 << 9  // leaf 1: APIC_BASE.EN
	edxHTT         = 1 << 28 // leaf 1: EBX[23:16] is valid

	levelSMT  = 1 // leaf 0xb, ECX[15:8]
	levelCore = 2
)

// guestCPUID is what all vCPUs have in common: what KVM can give, and the two
// bits that api.rst leaves to user space.
func guestCPUID(sys *kvm.System) ([]kvm.CPUIDEntry, error) {
	leaves, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	for i := range leaves {
		if leaves[i].Function != leafFeatures {
			continue
		}
		leaves[i].ECX |= ecxHypervisor
		if sys.CheckExtension(kvm.CapTSCDeadlineTimer) > 0 {
			leaves[i].ECX |= ecxTSCDeadline
		}
	}
	return leaves, nil
}

// topology returns the leaves for vCPU id: count cores of one thread each in
// one package. Guests read the same facts from several leaves and complain when
// they differ.
func topology(leaves []kvm.CPUIDEntry, id, count int) []kvm.CPUIDEntry {
	shift := uint32(bits.Len(uint(count - 1))) // APIC id bits within the package
	out := make([]kvm.CPUIDEntry, 0, len(leaves)+3)
	hasTopology := slices.ContainsFunc(leaves, func(e kvm.CPUIDEntry) bool { return e.Function == leafTopology })
	for _, e := range leaves {
		switch e.Function {
		case leafFeatures:
			e.EBX = e.EBX&0xffff | uint32(count)<<16 | uint32(id)<<24
			e.EDX &^= edxHTT
			if count > 1 {
				e.EDX |= edxHTT
			}
		case leafCache:
			if e.EAX&0x1f != 0 {
				e.EAX = e.EAX&0x3fff | uint32(count-1)<<26 // each core has its own caches
			}
		case leafTopology, leafTopology2:
			continue // replaced below
		case leafAMDSize:
			e.ECX = e.ECX&^0xf0ff | shift<<12 | uint32(count-1)
		case leafAMDTopo:
			e.EAX, e.EBX, e.ECX = uint32(id), uint32(id), 0
		}
		out = append(out, e)
	}
	if !hasTopology {
		return out
	}
	level := func(index, shift, n, kind uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{
			Function: leafTopology, Index: index, Flags: kvm.CPUIDFlagSignificantIndex,
			EAX: shift, EBX: n, ECX: kind<<8 | index, EDX: uint32(id),
		}
	}
	return append(out,
		level(0, 0, 1, levelSMT),
		level(1, shift, uint32(count), levelCore),
		level(2, 0, 0, 0))
}
