package ninep

import "sync/atomic"

// turn is the right to pop. It is a lock that can be taken away from a holder
// who handles a request for too long, but not from one that pops.
//
//	        take            handle
//	free ────────▶ popping ────────▶ handling
//	 ▲                │ ▲                │ │
//	 ├────── give ────┘ └───── back ─────┘ │
//	 └────────────── revoke ───────────────┘
type turn struct{ v atomic.Uint64 }

// What turn.v holds: a number that is another for each request, and below it
// one of the states.
const (
	turnFree    = 0
	turnPopping = 1
	turnLeader  = 2 // a goroutine that waits for kicks handles a request
	turnVCPU    = 3 // a vCPU handles one
	turnState   = 3 // mask
	turnNext    = 4
)

// take makes the caller the holder, if there is none.
func (t *turn) take() bool {
	v := t.v.Load()
	return v&turnState == turnFree && t.v.CompareAndSwap(v, v|turnPopping)
}

// taken says whether somebody holds it.
func (t *turn) taken() bool { return t.v.Load()&turnState != turnFree }

// give ends the caller's turn. Precondition: it pops.
func (t *turn) give() { t.v.Store(t.v.Load() &^ turnState) }

// handle notes that the holder, who is turnLeader or turnVCPU, handles a request
// from now on. Precondition: it pops.
func (t *turn) handle(who uint64) (busy uint64) {
	busy = t.v.Load()&^turnState + turnNext | who
	t.v.Store(busy)
	return busy
}

// back notes that the request is done. It returns false if the turn is lost.
func (t *turn) back(busy uint64) bool {
	return t.v.CompareAndSwap(busy, busy&^turnState|turnPopping)
}

// revoke takes the turn from the holder that handles request busy, if it still
// does.
func (t *turn) revoke(busy uint64) bool {
	return t.v.CompareAndSwap(busy, busy&^turnState)
}
