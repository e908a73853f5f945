// Package virtq is the device side of a virtio split virtqueue (virtio 1.2
// §2.7) with INDIRECT_DESC and EVENT_IDX.
//
// The rings live in guest memory and the guest is hostile: each ring field and
// each descriptor is loaded once, with an atomic, and decided on as loaded. A
// Chain that Pop returns has been checked (order, ranges, length, no loop), and
// its iovecs are host views of guest pages, so that a device can preadv straight
// into them. The bytes in those pages may still change at any time.
//
// Threads: Pop, Pending, EnableKicks, DisableKicks and Wait belong to one
// goroutine at a time (the caller serialises them). Push and Notify may be
// called from any number of goroutines, in any order of chains. After Stop no
// method touches guest memory except through a chain that the device still
// holds, which is the device's to forget.
//
// Most devices need only Serve:
//
//	err := virtq.Serve(q, func(c *virtq.Chain) error {
//		n := answer(c.Readable(), c.Writable())
//		return q.Push(c, uint32(n))
//	})
//	if err != nil {
//		fail(err) // malformed ring: the device needs a reset
//	}
package virtq
