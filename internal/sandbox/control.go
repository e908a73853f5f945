package sandbox

import (
	"context"
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

// Control answers one request of the control socket.
func (c *container) Control(ctx context.Context, method string, params json.RawMessage, files []*os.File) (any, error) {
	if method == control.MethodStatus {
		return c.status(), nil
	}
	if c.status().State == control.StateCreating {
		return nil, badRequest("the container is being created")
	}
	switch method {
	case control.MethodStart:
		return nil, c.start(ctx)
	case control.MethodKill:
		return with(params, func(p *control.KillParams) (any, error) {
			if p.ExecID != "" {
				return nil, c.killExec(p.ExecID, unix.Signal(p.Signal))
			}
			return nil, c.kill(unix.Signal(p.Signal))
		})
	case control.MethodWait:
		select {
		case <-c.stopped:
			return *c.status().Exit, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case control.MethodEnded:
		select {
		case <-c.over:
		case <-c.stopped:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return nil, nil
	case control.MethodOOM:
		return with(params, func(p *control.OOM) (any, error) { return c.awaitOOM(ctx, p.Kills) })
	case control.MethodPause:
		if c.main != nil {
			return nil, c.freeze(ctx)
		}
		return nil, c.pauseVM()
	case control.MethodResume:
		if c.main != nil {
			return nil, c.thaw(ctx)
		}
		return nil, c.resumeVM()
	case control.MethodJoin:
		return with(params, func(p *control.Join) (any, error) { return nil, c.join(ctx, p, files) })
	case control.MethodMember:
		return with(params, func(p *control.Member) (any, error) {
			if m := c.member(p.ID); m != nil && p.Method != control.MethodJoin && p.Method != control.MethodMember {
				return m.Control(ctx, p.Method, p.Params, files)
			}
			return nil, errStopped
		})
	case control.MethodExec:
		return with(params, func(p *control.Exec) (any, error) { return c.exec(ctx, p, files) })
	case control.MethodExecWait:
		return with(params, func(p *control.ExecStarted) (any, error) { return c.execWait(ctx, p.ExecID) })
	case control.MethodResize:
		return with(params, func(p *control.Resize) (any, error) { return nil, c.resizeExec(ctx, p) })
	case control.MethodPids:
		return control.Pids{Pids: append([]int{c.pid}, c.execs.pids()...)}, nil
	case control.MethodStats:
		var stats wire.StatsResult
		of := c.id
		if c.plan.Placeholder {
			of = "" // of the pod
		}
		return &stats, c.ask(ctx, wire.MethodStats, &wire.Stats{ID: of}, &stats)
	case control.MethodUpdate:
		if c.plan.Placeholder {
			return nil, badRequest(noProcess)
		}
		return with(params, func(r *wire.Resources) (any, error) {
			return nil, c.ask(ctx, wire.MethodUpdate, &wire.Update{ID: c.id, Resources: *r}, nil)
		})
	default:
		return nil, badRequest("unknown method " + method)
	}
}

// with decodes parameters.
func with[P any](params json.RawMessage, do func(*P) (any, error)) (any, error) {
	p := new(P)
	if err := json.Unmarshal(params, p); err != nil {
		return nil, badRequest(err.Error())
	}
	return do(p)
}

// ask makes a call to the agent that it answers at once.
func (c *container) ask(ctx context.Context, method string, params, result any) error {
	switch c.status().State {
	case control.StatePaused:
		return errPaused
	case control.StateStopped:
		return errStopped
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return guestError(c.client.Call(ctx, method, params, result))
}
