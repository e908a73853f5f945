package shim

import (
	"context"
	"time"

	apievents "github.com/containerd/containerd/api/events"
)

const (
	// oomInterval is the least time between two OOM events of a container: behind them is the guest's word, and a guest may say
	// so all the time. That they push no exit out of the queue while containerd is away is publishSpare's doing.
	oomInterval = time.Second
	// oomGrace is for the last event, when the container has ended.
	oomGrace = time.Second
)

// routineOOM tells of OOM kills in a container until it ends. After each kill there is an event, which may stand for
// several; over, which is closed when the container's process has ended, makes it the last one. When ctx is done there are
// no more, even if there are kills to tell: the exit is told.
func (s *service) routineOOM(ctx context.Context, c *container, over <-chan struct{}) {
	var seen uint64
	var last time.Time
	for ended := false; !ended; {
		n, err := c.rc.AwaitOOM(ctx, seen)
		if err != nil {
			return
		}
		seen = n
		select {
		case <-over:
			ended = true
		case <-time.After(time.Until(last.Add(oomInterval))):
		case <-ctx.Done():
			return
		}
		last = time.Now()
		c.init.gate.Lock() // not before its start is told
		if ctx.Err() == nil {
			s.events.publishSpare("/tasks/oom", &apievents.TaskOOM{ContainerID: c.id})
		}
		c.init.gate.Unlock()
	}
}
