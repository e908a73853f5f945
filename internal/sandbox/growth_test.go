package sandbox

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/internal/wire"
)

func TestGrow(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct {
		template, memory uint64
		vcpus            int
		total            uint64
		want             *wire.Grow
	}{
		{128 * mib, 128 * mib, 1, 128 * mib, nil},
		{128 * mib, 128 * mib, 3, 128 * mib, &wire.Grow{VCPUs: 3}},
		{128 * mib, 256 * mib, 1, 256 * mib, &wire.Grow{VCPUs: 1, Memory: []wire.MemoryRange{{Addr: 128 * mib, Size: 128 * mib}}}},
		{128 * mib, 200 * mib, 1, 256 * mib, &wire.Grow{VCPUs: 1, Memory: []wire.MemoryRange{{Addr: 128 * mib, Size: 128 * mib}}, Limit: 200 * mib}},
		{200 * mib, 300 * mib, 1, 384 * mib, &wire.Grow{VCPUs: 1, Memory: []wire.MemoryRange{{Addr: 256 * mib, Size: 128 * mib}}, Limit: 300 * mib}},
		{200 * mib, 328 * mib, 1, 384 * mib, &wire.Grow{VCPUs: 1, Memory: []wire.MemoryRange{{Addr: 256 * mib, Size: 128 * mib}}}},
		{128 * mib, 4 * gib, 2, 4 * gib, &wire.Grow{VCPUs: 2, Memory: []wire.MemoryRange{{Addr: 128 * mib, Size: 3*gib - 128*mib}, {Addr: 4 * gib, Size: gib}}}},
		{4 * gib, 5 * gib, 1, 5 * gib, &wire.Grow{VCPUs: 1, Memory: []wire.MemoryRange{{Addr: 5 * gib, Size: gib}}}},
		{3*gib - 64*mib, 3 * gib, 1, 3*gib + 128*mib, &wire.Grow{VCPUs: 1, Memory: []wire.MemoryRange{{Addr: 4 * gib, Size: 128 * mib}}, Limit: 3 * gib}},
	} {
		s := &saved{vcpus: 1, memory: c.template, growth: growth{memoryBlock, 8}}
		vm := &oci.VM{VCPUs: c.vcpus, Memory: c.memory}
		if got := s.grow(vm); !reflect.DeepEqual(got, c.want) || s.total(vm) != c.total {
			t.Errorf("%d to %d MiB: %+v of %d MiB", c.template>>20, c.memory>>20, got, s.total(vm)>>20)
		}
	}
}

// TestGrowthOf: whatever a guest says, what is believed can be saved and read back.
func TestGrowthOf(t *testing.T) {
	for p, whole := range map[wire.Prepared]bool{
		{}:                                   false,
		{MemoryBlock: memoryBlock, VCPUs: 8}: true,
		{MemoryBlock: memoryBlock, VCPUs: 1 << 40}: true,
		{MemoryBlock: memoryBlock, VCPUs: 2}:       false,
		{MemoryBlock: 1, VCPUs: 8}:                 false,
		{MemoryBlock: ^uint64(0), VCPUs: -8}:       false,
	} {
		s := sampleSaved()
		s.growth = growthOf(&p)
		if _, err := decodeSaved(vmstate.NewReader(s.encode())); err != nil || s.growth.whole() != whole {
			t.Errorf("%+v: %+v, %v", p, s.growth, err)
		}
	}
}

// TestGrowHostile: a guest that does not do what it is told, or says so, ends the
// create in bounded time and with a reason.
func TestGrowHostile(t *testing.T) {
	g := &wire.Grow{VCPUs: 2, Memory: []wire.MemoryRange{{Addr: memoryBlock, Size: 2 * memoryBlock}}}
	never := make(chan struct{})
	defer close(never)
	for want, answer := range map[string]func([]byte) (any, *wire.Error){
		"did not take its memory and vCPUs into use within 80ms": func([]byte) (any, *wire.Error) { <-never; return nil, nil },
		"no such file": func([]byte) (any, *wire.Error) {
			return nil, &wire.Error{Kind: wire.KindFailed, Message: "write: no such file"}
		},
	} {
		r := newRig(t, map[string]func([]byte) (any, *wire.Error){wire.MethodGrow: answer})
		if err := r.c.grow(t.Context(), g, 20*time.Millisecond); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
