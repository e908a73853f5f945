package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lucid-containers/lucid/internal/oci"
)

// killed is the exit status of what was found dead or had to be killed.
const killed = 128 + uint32(unix.SIGKILL)

// deleteLeftovers is the action `delete`: whatever became of the shim, nothing
// of its container is left afterwards. containerd calls it when the connection
// to the shim has ended, and after a restart.
func deleteLeftovers(c *call, stdout io.Writer) error {
	rt, err := newRuntime(c, nil)
	if err != nil {
		return err
	}
	answer := &task.DeleteResponse{ExitStatus: killed, ExitedAt: timestamppb.New(time.Now())}
	vm := ""
	if container, err := rt.Load(c.id); err == nil {
		answer.Pid = uint32(container.Pid())
		vm = container.Pod()
	}
	// The shim of a pod serves others, of which containerd says nothing here.
	if c.role == oci.Alone || !c.answers() {
		killServer(c)
	}
	bundle := c.bundle
	if bundle == "" {
		if bundle, err = os.Getwd(); err != nil {
			return err
		}
	}
	// All of it, also when a part fails.
	err = errors.Join(rt.Delete(c.id, true), unmountRootfs(bundle))
	if !listening(c.socketPath()) {
		if isGroupVM(vm) {
			err = errors.Join(err, rt.Delete(vm, true))
		}
		_ = os.Remove(c.socketPath()) // it is gone after a normal end
	}
	if err != nil {
		return err
	}
	out, err := proto.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = stdout.Write(out)
	return err
}

// answers says whether there is one that is not stuck.
func (c *call) answers() bool {
	const patience = 2 * time.Second // of the five that containerd has for all of `delete`
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socketPath())
	if err != nil {
		return false
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	_, err = task.NewTTRPCTaskClient(client).Connect(ctx, &task.ConnectRequest{ID: c.id})
	return err == nil
}

// killServer ends a server process that no longer answers. Its sandbox
// process ends with it.
func killServer(c *call) {
	data, err := os.ReadFile(c.inBundle(pidFile))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil || pid <= 1 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// After the pidfd: the number may be another process's by now.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return
	}
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	if args[len(args)-1] != actionServe || !containsPair(args, "-id", c.id) || !containsPair(args, "-namespace", c.namespace) {
		return
	}
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
	}
}

func containsPair(args []string, name, value string) bool {
	for i := 1; i < len(args); i++ {
		if args[i-1] == name && args[i] == value {
			return true
		}
	}
	return false
}

// unmountRootfs takes away what create mounted.
func unmountRootfs(bundle string) error {
	rootfs := filepath.Join(bundle, rootfsDir)
	if _, err := os.Lstat(rootfs); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := mount.UnmountRecursive(rootfs, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", rootfs, err)
	}
	return nil
}
