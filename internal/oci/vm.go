package oci

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// VM is the machine that a container asks for.
type VM struct {
	VCPUs  int
	Memory uint64 // bytes
	// Kernel and Initrd are vm.kernel.path and .initrd; empty means lucid's own.
	Kernel       string   `json:",omitempty"`
	Initrd       string   `json:",omitempty"`
	KernelParams []string `json:",omitempty"`
	// Transport carries control and stdio: TransportVsock or TransportSerial.
	Transport string
	DebugUART bool `json:",omitempty"`
	// Template is the annotation's word for where the VM begins.
	Template string `json:",omitempty"`
	// Cache is what the guest keeps of the host's files: CacheMmap, CacheNone or
	// CacheLoose; empty means CacheMmap.
	Cache string `json:",omitempty"`
}

// Values of VM.Transport.
const (
	TransportVsock  = "vsock"
	TransportSerial = "serial"
)

// Values of VM.Cache, in the words of Linux's mount option cache= (Documentation/filesystems/9p.rst).
// docs/flows/ninep.md says what each means for who shares files with the host.
const (
	CacheMmap  = "mmap"
	CacheNone  = "none"
	CacheLoose = "loose"
)

// Limits of a VM, and what it has when nothing is asked.
const (
	MinVCPUs, MaxVCPUs, DefaultVCPUs = 1, 8, 1

	MinMemory     uint64 = 32 << 20
	MaxMemory     uint64 = 256 << 30
	DefaultMemory uint64 = 128 << 20
	// memoryStep is the guest kernel's memory section. A VM that ends inside
	// one pays to initialise the missing pages (0.8 s on software KVM), so a
	// size that we choose ourselves ends on one.
	memoryStep uint64 = 128 << 20
	// memoryOverhead is what a guest needs besides its container's limit:
	// kernel, agent and page tables.
	memoryOverhead uint64 = 64 << 20
)

// The annotations that are obeyed. There are none that name a file: whoever
// writes an annotation may not be who installed the host (CVE-2020-27151).
const (
	AnnotationVCPUs     = "lucid.vcpus"
	AnnotationMemory    = "lucid.memory"
	AnnotationTransport = "lucid.transport"
	AnnotationDebugUART = "lucid.debug-uart"
	AnnotationTemplate  = "lucid.template"
	AnnotationCache     = "lucid.9p-cache"

	annotationPrefix = "lucid."
)

// size decides the VM: annotations, then vm.hwConfig, then linux.resources,
// then the defaults. Notes are limits that do not fit and were rounded.
func size(spec *specs.Spec) (VM, []string, error) {
	return sizeOf(spec, DefaultVCPUs, DefaultMemory)
}

// sizeOf is size with other defaults.
func sizeOf(spec *specs.Spec, vcpus int, memory uint64) (VM, []string, error) {
	vm := VM{VCPUs: vcpus, Memory: memory, Transport: TransportVsock}
	notes := sizeFromResources(&vm, spec.Linux)
	more, err := sizeFromPod(&vm, spec.Annotations)
	if err != nil {
		return VM{}, nil, err
	}
	notes = append(notes, more...)
	if spec.VM != nil {
		vm.Kernel, vm.Initrd = spec.VM.Kernel.Path, spec.VM.Kernel.InitRD
		vm.KernelParams = spec.VM.Kernel.Parameters
		if err := sizeFromHWConfig(&vm, spec.VM.HwConfig); err != nil {
			return VM{}, nil, err
		}
	}
	if err := sizeFromAnnotations(&vm, spec.Annotations); err != nil {
		return VM{}, nil, err
	}
	return vm, notes, nil
}

// NewVM is a VM of a size that no config.json asks for. The error is a
// *FieldError, of vcpus or memory.
func NewVM(vcpus int, memory uint64) (VM, error) {
	if vcpus < MinVCPUs || vcpus > MaxVCPUs {
		return VM{}, fieldErr("vcpus", "%d is outside %d to %d", vcpus, MinVCPUs, MaxVCPUs)
	}
	if err := checkMemory("memory", memory); err != nil {
		return VM{}, err
	}
	return VM{VCPUs: vcpus, Memory: alignMemory(memory), Transport: TransportVsock}, nil
}

func sizeFromResources(vm *VM, l *specs.Linux) (notes []string) {
	if l == nil || l.Resources == nil {
		return nil
	}
	if c := l.Resources.CPU; c != nil && c.Quota != nil && *c.Quota > 0 {
		period := uint64(100000) // the kernel's default cfs_period_us
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		quota := uint64(*c.Quota)
		n := quota / period
		if quota%period != 0 {
			n++
		}
		if n > MaxVCPUs {
			notes = append(notes, fmt.Sprintf("linux.resources.cpu.quota above %d CPUs", MaxVCPUs))
		}
		vm.VCPUs = int(min(n, MaxVCPUs))
	}
	if m := l.Resources.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		limit := uint64(*m.Limit)
		if limit > MaxMemory-memoryOverhead {
			// Docker writes such limits for "none".
			notes = append(notes, fmt.Sprintf("linux.resources.memory.limit above %d GiB", MaxMemory>>30))
			return notes
		}
		want := (limit + memoryOverhead + memoryStep - 1) / memoryStep * memoryStep
		vm.Memory = max(want, DefaultMemory)
	}
	return notes
}

func sizeFromHWConfig(vm *VM, hw *specs.HWConfig) error {
	if hw == nil {
		return nil
	}
	if hw.VCPUs != nil {
		if err := checkVCPUs("vm.hwConfig.vcpus", uint64(*hw.VCPUs)); err != nil {
			return err
		}
		vm.VCPUs = int(*hw.VCPUs)
	}
	if hw.Memory != nil {
		if err := checkMemory("vm.hwConfig.memory", *hw.Memory); err != nil {
			return err
		}
		vm.Memory = alignMemory(*hw.Memory)
	}
	return nil
}

func sizeFromAnnotations(vm *VM, annotations map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(key, annotationPrefix) {
			continue
		}
		field, value := "annotations["+key+"]", annotations[key]
		switch key {
		case AnnotationVCPUs:
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return fieldErr(field, "%q is not a number", value)
			}
			if err := checkVCPUs(field, n); err != nil {
				return err
			}
			vm.VCPUs = int(n)
		case AnnotationMemory:
			n, err := ParseSize(value)
			if err != nil {
				return fieldErr(field, "%v", err)
			}
			if err := checkMemory(field, n); err != nil {
				return err
			}
			vm.Memory = alignMemory(n)
		case AnnotationTransport:
			if value != TransportVsock && value != TransportSerial {
				return fieldErr(field, "%q is neither %s nor %s", value, TransportVsock, TransportSerial)
			}
			vm.Transport = value
		case AnnotationDebugUART:
			on, err := strconv.ParseBool(value)
			if err != nil {
				return fieldErr(field, "%q is neither true nor false", value)
			}
			vm.DebugUART = on
		case AnnotationTemplate:
			if value != "auto" && value != "off" {
				return fieldErr(field, "%q is neither auto nor off", value)
			}
			vm.Template = value
		case AnnotationCache:
			// It becomes a part of the mount options: nothing else may come through.
			if value != CacheMmap && value != CacheNone && value != CacheLoose {
				return fieldErr(field, "%q is none of %s, %s and %s", value, CacheMmap, CacheNone, CacheLoose)
			}
			vm.Cache = value
		default:
			return fieldErr(field, "unknown; known are %s, %s, %s, %s, %s and %s",
				AnnotationVCPUs, AnnotationMemory, AnnotationTransport, AnnotationDebugUART, AnnotationTemplate, AnnotationCache)
		}
	}
	return nil
}

func checkVCPUs(field string, n uint64) error {
	if n < MinVCPUs || n > MaxVCPUs {
		return fieldErr(field, "%d is outside %d to %d", n, MinVCPUs, MaxVCPUs)
	}
	return nil
}

func checkMemory(field string, n uint64) error {
	if n < MinMemory || n > MaxMemory {
		return fieldErr(field, "%d bytes is outside %d MiB to %d GiB", n, MinMemory>>20, MaxMemory>>30)
	}
	return nil
}

// alignMemory rounds up to 2 MiB, the size of a huge page.
func alignMemory(n uint64) uint64 {
	const huge = 2 << 20
	return (n + huge - 1) / huge * huge
}

// ParseSize reads a number of bytes with an optional suffix: k, m, g (each
// also with i and with B), always powers of 1024.
func ParseSize(s string) (uint64, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimSuffix(t, "b")
	t = strings.TrimSuffix(t, "i")
	shift := 0
	for suffix, bits := range map[string]int{"k": 10, "m": 20, "g": 30} {
		if cut, ok := strings.CutSuffix(t, suffix); ok {
			t, shift = cut, bits
			break
		}
	}
	n, err := strconv.ParseUint(t, 10, 64)
	if err != nil || n > math.MaxUint64>>shift {
		return 0, fmt.Errorf("%q is not a size such as 268435456 or 256MiB", s)
	}
	return n << shift, nil
}
