package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxHookOutput bounds what of a hook's standard error is quoted.
const maxHookOutput = 2048

// hookOutput keeps the first maxHookOutput bytes.
type hookOutput []byte

func (o *hookOutput) Write(p []byte) (int, error) {
	*o = append(*o, p[:min(len(p), maxHookOutput-len(*o))]...)
	return len(p), nil
}

// runHook runs one hook on the host with the container's state on its
// standard input. It runs in our own namespaces: docker's and nerdctl's hooks
// find the container's network namespace by the pid in the state.
func runHook(kind string, h specs.Hook, state []byte) error {
	ctx := context.Background()
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	// The specification's env is the whole environment.
	cmd.Env = append([]string{}, h.Env...)
	cmd.Stdin = bytes.NewReader(state)
	var out hookOutput
	cmd.Stderr = &out
	// A hook that leaves a daemon behind may keep the pipe open.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("still running after %d s", *h.Timeout)
	}
	text := strings.TrimSpace(string(out))
	if text != "" {
		return fmt.Errorf("%s hook %s: %w: %s", kind, h.Path, err, text)
	}
	return fmt.Errorf("%s hook %s: %w", kind, h.Path, err)
}

func hookState(rec *record, status Status) ([]byte, error) {
	// specs.State, not our State: hooks parse exactly these fields.
	return json.Marshal(specs.State{
		Version: specs.Version, ID: rec.ID, Status: specs.ContainerState(status), Pid: rec.Pid,
		Bundle: rec.Bundle, Annotations: rec.Annotations,
	})
}

func runAll(kind string, hooks []specs.Hook, rec *record, status Status) error {
	if len(hooks) == 0 {
		return nil
	}
	state, err := hookState(rec, status)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if err := runHook(kind, h, state); err != nil {
			return err
		}
	}
	return nil
}

// hooksCreate runs the hooks of create, in the specification's order.
func (c *Container) hooksCreate() error {
	h := c.rec.Hooks
	if h == nil {
		return nil
	}
	//lint:ignore SA1019 docker up to 27 still uses it
	if err := runAll("prestart", h.Prestart, &c.rec, Creating); err != nil {
		return err
	}
	return runAll("createRuntime", h.CreateRuntime, &c.rec, Creating)
}

// poststart runs after the process was started; a failure is an error since
// specification 1.3.
func (c *Container) poststart() error {
	if c.rec.Hooks == nil {
		return nil
	}
	return runAll("poststart", c.rec.Hooks.Poststart, &c.rec, Running)
}

// runPoststop runs after the container is gone; failures only warn.
func runPoststop(rec *record, log *slog.Logger) {
	if rec.Hooks == nil || len(rec.Hooks.Poststop) == 0 {
		return
	}
	stopped := *rec
	stopped.Pid = 0
	state, err := hookState(&stopped, Stopped)
	if err != nil {
		log.Warn("poststop hooks", "err", err)
		return
	}
	for _, h := range rec.Hooks.Poststop {
		if err := runHook("poststop", h, state); err != nil {
			log.Warn(err.Error())
		}
	}
}
