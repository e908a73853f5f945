package shim

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readyTimeout is for a logging program's first word.
	readyTimeout = 10 * time.Second
	// binaryGrace is how long one may take to write out what it has: upstream's number.
	binaryGrace = 12 * time.Second
)

// logBinary is a program that logs a process's output, after containerd's protocol: it has
// stdout as fd 3, stderr as fd 4, and closes fd 5 when it is ready.
type logBinary struct {
	stdout, stderr *os.File // the writing ends, for the process
	cmd            *exec.Cmd
}

// startBinary starts the program that a URI names. The query is its arguments.
func startBinary(u *url.URL, id, namespace string) (_ *logBinary, err error) {
	var files []*os.File
	defer func() {
		for i, f := range files {
			if writing := i == 1 || i == 3; err != nil || !writing {
				_ = f.Close()
			}
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		files = append(files, r, w)
	}
	b := &logBinary{stdout: files[1], stderr: files[3], cmd: exec.Command(u.Path, binaryArgs(u.Query())...)}
	b.cmd.Env = append(os.Environ(), "CONTAINER_ID="+id, "CONTAINER_NAMESPACE="+namespace)
	b.cmd.ExtraFiles = []*os.File{files[0], files[2], files[5]}
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("logging program: %w", err)
	}
	_ = files[5].Close()
	if err := files[4].SetReadDeadline(time.Now().Add(readyTimeout)); err != nil {
		return nil, err
	}
	n, err := files[4].Read(make([]byte, 1))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
	case n == 0 && u.Scheme == "binary-v2":
		err = errors.New("it has not said that it is ready")
	default:
		return b, nil
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	return nil, fmt.Errorf("logging program %s: %w", u.Path, err)
}

// binaryArgs are each key, followed by its value if it has one.
func binaryArgs(query url.Values) []string {
	keys := make([]string, 0, len(query))
	for k := range query {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var args []string
	for _, k := range keys {
		args = append(args, k)
		if v := query.Get(k); v != "" {
			args = append(args, v)
		}
	}
	return args
}

// close waits for the program, which ends with the process's output, and then no longer.
func (b *logBinary) close() {
	done := make(chan struct{})
	go func() {
		_ = b.cmd.Wait()
		close(done)
	}()
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGKILL} {
		select {
		case <-done:
			return
		case <-time.After(binaryGrace / 2):
			_ = b.cmd.Process.Signal(sig)
		}
	}
	<-done
}
