// Command hello-init is the smallest /init in Go: it reports the boot counter
// and waits for ever. count-boot -hello uses it to tell what the kernel and
// Go's runtime alone cost; the difference to a normal count is the agent.
package main

import (
	"os"
	"time"

	"github.com/lucid-containers/lucid/guest/bootcount"
)

func main() {
	if err := bootcount.Report(os.Stderr); err != nil {
		os.Exit(1) // PID 1 gone: the kernel panics and says so
	}
	for {
		time.Sleep(time.Hour) // PID 1 must not end
	}
}
