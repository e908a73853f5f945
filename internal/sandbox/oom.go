package sandbox

import (
	"context"
	"sync"

	"github.com/lucid-containers/lucid/internal/control"
)

// oomKills is how many processes of a container the guest has said that its OOM killer has killed. A guest that says so
// without end costs one number: whoever waits asks again when he is done with the last answer.
type oomKills struct {
	mu   sync.Mutex
	n    uint64        // protected by mu; only grows
	more chan struct{} // protected by mu; closed when n grows; nil when nobody waits
}

// grow takes the guest's word.
func (k *oomKills) grow(n uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n <= k.n {
		return
	}
	k.n = n
	if k.more != nil {
		close(k.more)
		k.more = nil
	}
}

// look returns the number, and what is closed when it grows.
func (k *oomKills) look() (uint64, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.more == nil {
		k.more = make(chan struct{})
	}
	return k.n, k.more
}

// awaitOOM returns when there have been more than seen kills, or with errStopped when there will not be.
func (c *container) awaitOOM(ctx context.Context, seen uint64) (any, error) {
	for {
		over := c.status().State == control.StateStopped // before the look: nothing grows afterwards
		n, more := c.oom.look()
		switch {
		case n > seen:
			return control.OOM{Kills: n}, nil
		case over:
			return nil, errStopped
		}
		select {
		case <-more:
		case <-c.stopped:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
