package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lucid-containers/lucid/internal/assets"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// Files in the bundle.
const (
	// addressFile is where containerd up to 1.7 looks for a shim when it has been restarted.
	addressFile = "address"
	// pidFile names the server process.
	pidFile = "lucid-shim.pid"
	// logFile is a fifo that containerd reads.
	logFile = "log"
)

// listenFD is the listening socket in the server process.
const listenFD = 3

// start listens and spawns the server process. It returns the address when
// that can be dialled: the socket is there before the process is. The process is nil
// if it is the shim of others that has been there before.
func start(c *call) (_ string, _ *os.Process, err error) {
	// A broken installation is to be told now, not by a log that nobody reads.
	if _, err := assets.Program(lucidProgram); err != nil {
		return "", nil, err
	}
	path := c.socketPath()
	address := "unix://" + path
	l, err := listen(path)
	if errors.Is(err, errListening) && (c.role == oci.Member || c.role == oci.Grouped) {
		return address, nil, c.writeAddress(address) // the shim of the others is this one's too
	}
	if err != nil {
		return "", nil, err
	}
	defer l.Close()
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	socket, err := l.File()
	if err != nil {
		return "", nil, err
	}
	defer socket.Close()
	cmd, err := serverCommand(c, socket)
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	pid := cmd.Process.Pid
	if c.shimCgroup != "" {
		if err := runtime.JoinCgroup(c.shimCgroup, pid); err != nil {
			return "", nil, fmt.Errorf("shim_cgroup: %w", err)
		}
	}
	if err := adjustOOMScore(pid); err != nil {
		return "", nil, err
	}
	if err := runtime.WriteFileAtomic(c.inBundle(pidFile), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return "", nil, err
	}
	return address, cmd.Process, c.writeAddress(address)
}

func (c *call) writeAddress(address string) error {
	return runtime.WriteFileAtomic(c.inBundle(addressFile), []byte(address), 0o600)
}

// inBundle is the path of a file in the bundle, which is the working directory
// unless the caller says otherwise.
func (c *call) inBundle(name string) string { return filepath.Join(c.bundle, name) }

// serverCommand is this program again, without the caller's stdout and stderr:
// containerd waits for their end.
func serverCommand(c *call, socket *os.File) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-namespace", c.namespace, "-id", c.id, "-address", c.address}
	if c.debug {
		args = append(args, "-debug")
	}
	if c.socketDir != "" {
		args = append(args, "-socket-dir", c.socketDir)
	}
	cmd := exec.Command(exe, append(args, actionServe)...)
	cmd.Dir = c.bundle
	// GOGC as upstream's shims have it: little garbage is kept.
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+c.ttrpc, "GOGC=40", "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// adjustOOMScore makes the kernel prefer the shim to containerd, which is the
// parent of this process.
func adjustOOMScore(pid int) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", os.Getppid()))
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return err
	}
	const most = 1000 // proc(5), oom_score_adj
	score = min(score+1, most)
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(score)), 0)
}
