// Package guestmem is the memory of one guest, and the only place that turns
// a guest-physical address into host memory.
//
// Every address and length that comes here may have been chosen by a hostile
// guest: each method checks it without overflow and answers ErrRange, it never
// panics and never reaches outside the guest's memory.
//
// The contents are shared with running vCPUs. Slice hands out live memory that
// can change between two reads of it: whoever decides on a value copies it
// once and decides on the copy. The Load and Store methods are atomic and
// sequentially consistent; ring indices go through them.
//
// A Memory never changes after it is made, so it is safe for concurrent use.
// MapFile and Close are the exceptions: the owner calls the one before and the other after
// any vCPU or device can touch the memory.
//
//	mem, err := guestmem.Alloc(128 << 20)
//	if err != nil { ... }
//	defer mem.Close()
//	head, err := mem.Load16(availAddr + 2)
package guestmem
