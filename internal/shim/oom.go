package shim

import (
	"context"
	"time"

	apievents "github.com/containerd/containerd/api/events"
)

// oomGrace is for the last event, when the container has ended.
const oomGrace = time.Second

// routineOOM tells of OOM kills in a container until it ends. Behind each event is the guest's word, at most once in
// runtime.OOMInterval; that they push no exit out of the queue while containerd is away is publishSpare's doing. over, which
// is closed when the container's process has ended, makes an event the last one. When ctx is done there are no more, even if
// there are kills to tell: the exit is told.
func (s *service) routineOOM(ctx context.Context, c *container, over <-chan struct{}) {
	// An error says that there are no more.
	_ = c.rc.TellOOM(ctx, over, func() {
		c.init.gate.Lock() // not before its start is told
		defer c.init.gate.Unlock()
		if ctx.Err() == nil {
			s.events.publishSpare("/tasks/oom", &apievents.TaskOOM{ContainerID: c.id})
		}
	})
}
