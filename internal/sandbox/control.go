package sandbox

import (
	"context"
	"encoding/json"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
)

// Control answers one request of the control socket.
func (c *container) Control(ctx context.Context, method string, params json.RawMessage) (any, error) {
	if method == control.MethodStatus {
		return c.status(), nil
	}
	if c.status().State == control.StateCreating {
		return nil, &control.Error{Kind: control.KindBadRequest, Message: "the container is being created"}
	}
	switch method {
	case control.MethodStart:
		return nil, c.start(ctx)
	case control.MethodKill:
		var p control.KillParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, &control.Error{Kind: control.KindBadRequest, Message: err.Error()}
		}
		return nil, c.kill(ctx, unix.Signal(p.Signal))
	case control.MethodWait:
		select {
		case <-c.stopped:
			return *c.status().Exit, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	default:
		return nil, &control.Error{Kind: control.KindBadRequest, Message: "unknown method " + method}
	}
}
