package shim

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/assets"
)

// shimProgram is this program's name.
const shimProgram = "containerd-shim-lucid-v2"

// Main is the whole program; version is that of lucid. It returns the exit status.
func Main(version string) int {
	if err := run(version); err != nil {
		// containerd shows the user what is printed here.
		fmt.Fprintln(os.Stderr, "containerd-shim-lucid-v2:", err)
		return 1
	}
	return 0
}

func run(version string) error {
	c, err := parseCall(os.Args[1:], os.Getenv)
	if err != nil {
		return err
	}
	handOver()
	switch {
	case c.version:
		_, err := fmt.Println("containerd-shim-lucid-v2 version", version)
		return err
	case c.info:
		return printInfo(os.Stdin, os.Stdout, version)
	case c.action == actionDelete:
		return deleteLeftovers(c, os.Stdout)
	case c.action == actionServe:
		return serve(c)
	}
	// A containerd that dies meanwhile is to be an error, not the end. Notify, for Ignore would be inherited.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, maxStart+1))
	if err != nil {
		return fmt.Errorf("stdin: %w", err)
	}
	if len(stdin) > maxStart {
		return fmt.Errorf("stdin: more than %d MiB", maxStart>>20)
	}
	d := c.recognise(stdin)
	address, server, err := start(c)
	if err != nil {
		return err
	}
	answer, err := d.answer(address)
	if err == nil {
		_, err = os.Stdout.Write(answer)
	}
	if err != nil && server != nil {
		// Nobody knows of the server: `delete` may have been called before it was there.
		_ = server.Kill()
		_ = os.Remove(c.socketPath())
	}
	return err
}

// handOver becomes the installed program, if this is a copy of it somewhere else: callers may name any path. The installed one is
// where lucid is in containerd's PATH. Without that it returns, and what needs lucid says that it is missing.
func handOver() {
	if _, err := assets.Program(lucidProgram); err == nil {
		return
	}
	lucid, err := exec.LookPath(lucidProgram)
	if err != nil {
		return
	}
	shim := filepath.Join(filepath.Dir(lucid), shimProgram)
	_ = unix.Exec(shim, append([]string{shim}, os.Args[1:]...), os.Environ())
}
