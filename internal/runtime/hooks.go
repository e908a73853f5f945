package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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
func runHook(kind string, h specs.Hook, state []byte, dir string) error {
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
	cmd.Dir = dir
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
	return runAllIn("", kind, hooks, rec, status)
}

// runAllIn runs hooks in a working directory; empty: the caller's.
func runAllIn(dir, kind string, hooks []specs.Hook, rec *record, status Status) error {
	if len(hooks) == 0 {
		return nil
	}
	state, err := hookState(rec, status)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if err := runHook(kind, h, state, dir); err != nil {
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
	if err := runAll("createRuntime", h.CreateRuntime, &c.rec, Creating); err != nil {
		return err
	}
	return c.createContainerHooks()
}

// createContainerHooks runs what the specification wants in the container's
// namespaces and from the host's files. The container's network namespace is
// the sandbox process's. Its mount namespace is in the guest, to which the
// host's files go by 9P, and that does not cross mounts: so a mount of such a
// hook can reach nobody, and must not stay on the host. The working directory
// is the root file system, as with runc.
func (c *Container) createContainerHooks() error {
	hooks := c.rec.Hooks.CreateContainer
	if len(hooks) == 0 {
		return nil
	}
	return onThread(func() error {
		if os.Geteuid() == 0 { // another user has made no namespaces, and can mount nothing
			if err := c.asideWithNetwork(); err != nil {
				return fmt.Errorf("createContainer hooks: %w", err)
			}
		}
		return runAllIn(c.rec.Rootfs, "createContainer", hooks, &c.rec, Creating)
	})
}

// asideWithNetwork puts the calling thread into the sandbox process's network
// namespace and into a mount namespace of its own, which follows the host's.
func (c *Container) asideWithNetwork() error {
	net, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.rec.Pid))
	if err != nil {
		return err
	}
	defer net.Close()
	if err := unix.Setns(int(net.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // with CLONE_FS, of itself
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("mount", unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
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
		if err := runHook("poststop", h, state, ""); err != nil {
			log.Warn(err.Error())
		}
	}
}
