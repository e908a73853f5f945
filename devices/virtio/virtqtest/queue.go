package virtqtest

import (
	"time"
)

// Timeout is how long a test waits for a device before it fails.
const Timeout = 10 * time.Second

// Buf is one buffer of a chain in guest memory.
type Buf struct {
	Addr     uint64
	Len      uint32
	Writable bool // by the device
}

// Used is a chain that the device returned.
type Used struct {
	Head    uint16
	Written uint32
	Bufs    []Buf // as added
}

// Queue drives a Ring as a driver does.
type Queue struct {
	*Ring
	EventIdx bool
	Indirect bool // put chains of more than one buffer into an indirect table
	Async    bool // each kick comes from another vCPU, which may be kept waiting

	g        *Guest
	kick     func()
	irq      func(time.Duration) bool // waits for an interrupt; false on timeout
	free     []uint16
	chains   map[uint16][]Buf // by head
	held     map[uint16][]uint16
	lastUsed uint16
	kickedAt uint16
}

// NewQueue makes a queue over r. kick tells the device, irq waits for it; irq
// may be nil, then the queue polls.
func NewQueue(g *Guest, r *Ring, kick func(), irq func(time.Duration) bool) *Queue {
	q := &Queue{
		Ring: r, g: g, kick: kick, irq: irq,
		chains: map[uint16][]Buf{}, held: map[uint16][]uint16{},
	}
	for i := range r.Size {
		q.free = append(q.free, r.Size-1-i)
	}
	return q
}

// Free returns how many descriptors are free.
func (q *Queue) Free() int { return len(q.free) }

// Add offers a chain and returns its head. It does not kick.
func (q *Queue) Add(bufs ...Buf) uint16 {
	need := len(bufs)
	indirect := q.Indirect && need > 1
	if indirect {
		need = 1
	}
	if len(bufs) == 0 || need > len(q.free) {
		q.t.Fatalf("virtqtest: no room for a chain of %d buffers", len(bufs))
	}
	ids := make([]uint16, need)
	n := len(q.free) - need
	copy(ids, q.free[n:])
	q.free = q.free[:n]
	if indirect {
		tableAddr := q.g.Alloc(descSize * uint64(len(bufs)))
		for i, b := range bufs {
			q.PutDesc(tableAddr, i, desc(b, i+1 < len(bufs), uint16(i+1)))
		}
		q.SetDesc(int(ids[0]), Desc{Addr: tableAddr, Len: uint32(descSize * len(bufs)), Flags: FIndirect})
	} else {
		for i, b := range bufs {
			var next uint16
			if i+1 < len(ids) {
				next = ids[i+1]
			}
			q.SetDesc(int(ids[i]), desc(b, i+1 < len(ids), next))
		}
	}
	head := ids[0]
	q.chains[head], q.held[head] = bufs, ids
	q.Offer(head)
	return head
}

func desc(b Buf, more bool, next uint16) Desc {
	d := Desc{Addr: b.Addr, Len: b.Len}
	if b.Writable {
		d.Flags |= FWrite
	}
	if more {
		d.Flags |= FNext
		d.Next = next
	}
	return d
}

// Out allocates a device-readable buffer that holds p.
func (q *Queue) Out(p []byte) Buf {
	q.t.Helper()
	addr := q.g.Alloc(uint64(len(p)))
	q.g.Write(addr, p)
	return Buf{Addr: addr, Len: uint32(len(p))}
}

// In allocates a device-writable buffer of n bytes.
func (q *Queue) In(n uint32) Buf {
	q.t.Helper()
	return Buf{Addr: q.g.Alloc(uint64(n)), Len: n, Writable: true}
}

// Kick tells the device unless it asked not to be told (virtio 1.2 §2.7.10).
func (q *Queue) Kick() {
	idx := q.AvailIdx()
	old := q.kickedAt
	q.kickedAt = idx
	if q.EventIdx {
		if idx-q.AvailEvent()-1 >= idx-old {
			return
		}
	} else if q.UsedFlags()&1 != 0 {
		return
	}
	q.tell()
}

// tell writes the notification.
func (q *Queue) tell() {
	if q.Async {
		go q.kick()
		return
	}
	q.kick()
}

// ForceKick tells the device whatever it asked for.
func (q *Queue) ForceKick() {
	q.kickedAt = q.AvailIdx()
	q.tell()
}

// TryUsed takes the next used chain if there is one.
func (q *Queue) TryUsed() (Used, bool) {
	if q.UsedIdx() == q.lastUsed {
		return Used{}, false
	}
	e := q.UsedAt(q.lastUsed)
	q.lastUsed++
	head := uint16(e.Head)
	bufs, ok := q.chains[head]
	if !ok || e.Head > uint32(q.Size) {
		q.t.Fatalf("virtqtest: device used head %d that was not offered", e.Head)
	}
	q.free = append(q.free, q.held[head]...)
	delete(q.chains, head)
	delete(q.held, head)
	return Used{Head: head, Written: e.Written, Bufs: bufs}, true
}

// WaitUsed waits for the next used chain, by interrupt if the queue has one, and
// fails the test after Timeout. A lost interrupt shows as such a failure.
func (q *Queue) WaitUsed() Used {
	q.t.Helper()
	deadline := time.Now().Add(Timeout)
	for {
		if q.EventIdx {
			q.SetUsedEvent(q.lastUsed) // before looking, virtio 1.2 §2.7.7.1
		}
		if u, ok := q.TryUsed(); ok {
			return u
		}
		left := time.Until(deadline)
		if left <= 0 {
			q.t.Fatalf("virtqtest: nothing used within %v", Timeout)
		}
		if q.irq == nil {
			time.Sleep(50 * time.Microsecond)
			continue
		}
		if !q.irq(left) {
			if _, ok := q.TryUsed(); ok {
				q.t.Fatalf("virtqtest: the device used a chain without an interrupt")
			}
		}
	}
}

// NoUsed fails the test if the device uses a chain within d.
func (q *Queue) NoUsed(d time.Duration) {
	q.t.Helper()
	time.Sleep(d)
	if u, ok := q.TryUsed(); ok {
		q.t.Fatalf("virtqtest: device used %+v, want nothing used", u)
	}
}

// Data returns the bytes that the device wrote into a used chain.
func (q *Queue) Data(u Used) []byte {
	q.t.Helper()
	var p []byte
	left := u.Written
	for _, b := range u.Bufs {
		if !b.Writable {
			continue
		}
		n := min(left, b.Len)
		p = append(p, q.g.Read(b.Addr, int(n))...)
		left -= n
	}
	if left != 0 {
		q.t.Fatalf("virtqtest: device says it wrote %d bytes more than there was room for", left)
	}
	return p
}

// Send offers p and waits until the device has used it.
func (q *Queue) Send(p []byte) {
	q.t.Helper()
	q.Add(q.Out(p))
	q.Kick()
	q.WaitUsed()
}

// Request sends p with room for an answer of n bytes and returns the answer.
func (q *Queue) Request(p []byte, n uint32) []byte {
	q.t.Helper()
	q.Add(q.Out(p), q.In(n))
	q.Kick()
	return q.Data(q.WaitUsed())
}
