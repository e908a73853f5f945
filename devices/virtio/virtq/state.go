package virtq

import (
	"errors"
	"fmt"
)

// State is where a queue stands, besides what is in guest memory.
type State struct {
	Next      uint16 // index of the next available entry to take
	Used      uint16 // index of the next used entry to fill
	Signalled uint16 // Used at the last notification
	Flags     uint16 // of the used ring, as last written
}

// ErrOut says that a queue cannot be saved because the device works on chains.
var ErrOut = errors.New("virtqueue has requests under way")

// Freeze makes Pop and Wait answer ErrStopped from now on, as Stop does, but lets
// chains that are out be pushed and notified. The owner then waits for the
// goroutines that serve the queue, and asks for its State. What the driver has
// offered and nobody has popped stays in the ring for the queue that goes on
// from that State.
func (q *Queue) Freeze() {
	q.frozen.Store(true)
	q.Kick()
}

// ended says whether there are no more chains to come.
func (q *Queue) ended() bool { return q.frozen.Load() || q.stopped.Load() }

// Unpop takes back the chain that was popped last, as if it had not been.
// Preconditions: nothing of it was used, and it is the last one.
func (q *Queue) Unpop(c *Chain) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inFlight[c.head] = false
	q.free(c)
	q.next--
}

// State returns where the queue stands. Preconditions: it is frozen, and the
// goroutines that served it have ended. A saved queue has no chain out: to save
// one with requests under way (a 9P request of a running container), a device
// would finish them first, which Freeze gives it the time for.
func (q *Queue) State() (State, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !q.frozen.Load():
		return State{}, errors.New("virtqueue is not frozen")
	case q.popFailed != nil:
		return State{}, q.popFailed
	case q.out > 0:
		return State{}, fmt.Errorf("%w: %d", ErrOut, q.out)
	}
	return State{Next: q.next, Used: q.usedIdx, Signalled: q.signalled, Flags: q.usedFlags}, nil
}
