package sandbox

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// forwarded are the signals that go to the container's process: this process
// stands for it. SIGURG is not among them: it kicks vCPUs and is the Go
// runtime's. Nor are SIGPIPE and SIGCHLD, which are about this process.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT,
	unix.SIGWINCH,
}

// catchSignals is called before anything else: none may end the process.
func catchSignals() <-chan os.Signal {
	// A reader that went away is an error of write, not the end of us.
	signal.Ignore(unix.SIGPIPE)
	// A stand-in in the background does not stop for its terminal.
	signal.Ignore(unix.SIGTTOU, unix.SIGTTIN, unix.SIGTSTP)
	c := make(chan os.Signal, 64)
	signal.Notify(c, forwarded...)
	return c
}

// routineSignals forwards signals for as long as the process lives.
func (c *container) routineSignals(signals <-chan os.Signal) {
	for sig := range signals {
		if sig == unix.SIGWINCH {
			c.resize()
			continue
		}
		if err := c.kill(sig.(unix.Signal)); err != nil {
			c.log.Debug("forward signal", "signal", sig, "err", err)
		}
	}
}

// resize passes on the window size of the host's pty.
func (c *container) resize() {
	if c.io == nil || !c.io.terminal || c.isPaused() {
		return
	}
	w, h := c.io.size()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := c.client.Call(ctx, wire.MethodResizeTTY, &wire.ResizeTTY{ID: c.id, Width: w, Height: h}, nil)
	if err != nil {
		c.log.Debug("resize terminal", "err", err)
	}
}
