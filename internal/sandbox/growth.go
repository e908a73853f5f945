package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/vmstate"
	"github.com/lucid-containers/lucid/internal/wire"
)

// One template serves VMs of many sizes: memory that a VM has more than its template
// lies behind the template's, where it would be after a boot, and the guest adds it,
// block by block, before there is a container. The table of CPUs names as many as any
// VM may have; the guest starts those that this one has.

// memoryBlock is the guest kernel's memory section, and the only block it is asked
// to add. A kernel with another one has templates of fixed sizes.
const memoryBlock = 128 << 20

// growth is how far a saved guest can grow, by its own word. A guest that lies gets
// memory and vCPUs that it does not use.
type growth struct {
	block uint64 // memoryBlock; 0: no memory can be added
	vcpus int    // at most
}

// growthOf takes the guest's word, as far as it can be.
func growthOf(p *wire.Prepared) growth {
	g := growth{vcpus: min(max(p.VCPUs, 0), oci.MaxVCPUs)}
	if p.MemoryBlock == memoryBlock {
		g.block = memoryBlock
	}
	return g
}

// whole says that no size is out of reach.
func (g growth) whole() bool { return g.block != 0 && g.vcpus == oci.MaxVCPUs }

// check is for a growth that was read.
func (g growth) check(r *vmstate.Reader) {
	if g.block != 0 && g.block != memoryBlock || g.vcpus > oci.MaxVCPUs {
		r.Fail("grows by %d bytes to %d vCPUs", g.block, g.vcpus)
	}
}

// begin is where added memory begins, counted without the hole below 4 GiB.
func (s *saved) begin() uint64 { return (s.memory + memoryBlock - 1) / memoryBlock * memoryBlock }

// blocks is how many have to be added. Preconditions: the template fits vm.
func (s *saved) blocks(vm *oci.VM) uint64 {
	return (vm.Memory - s.memory + memoryBlock - 1) / memoryBlock
}

// total is the size of RAM that a VM needs.
func (s *saved) total(vm *oci.VM) uint64 {
	if vm.Memory <= s.memory {
		return s.memory
	}
	return s.begin() + s.blocks(vm)*memoryBlock
}

// grow is what the guest has to be told; nil if it has the template's size.
func (s *saved) grow(vm *oci.VM) *wire.Grow {
	if vm.Memory == s.memory && vm.VCPUs == s.vcpus {
		return nil
	}
	g := &wire.Grow{VCPUs: vm.VCPUs}
	if vm.Memory == s.memory {
		return g
	}
	begin, end := s.begin(), s.total(vm)
	if low := min(end, guestmem.GapStart); begin < low {
		g.Memory = append(g.Memory, wire.MemoryRange{Addr: begin, Size: low - begin})
	}
	if high := max(begin, guestmem.GapStart); high < end {
		g.Memory = append(g.Memory, wire.MemoryRange{Addr: high - guestmem.GapStart + guestmem.GapEnd, Size: end - high})
	}
	if s.memory+s.blocks(vm)*memoryBlock > vm.Memory {
		g.Limit = vm.Memory
	}
	return g
}

// growTime is what a guest may take for a vCPU, and for a block: its kernel
// initialises 32,768 struct pages for one, a second on software KVM. It is
// twenty times that for hosts with too much to do.
const growTime = 20 * time.Second

// grow has the guest take into use what it has more than its template, each block and
// vCPU within that time.
func (c *container) grow(ctx context.Context, g *wire.Grow, each time.Duration) error {
	if g == nil {
		return nil
	}
	steps := uint64(g.VCPUs)
	for _, r := range g.Memory {
		steps += r.Size / memoryBlock
	}
	limit := time.Duration(steps) * each
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := c.client.Call(bounded, wire.MethodGrow, g, nil)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("the guest did not take its memory and vCPUs into use within %v", limit)
	}
	return err
}
