// The runtime would otherwise look for a cgroup's CPU limit when it starts, and
// again and again after that; the agent's own cgroup has none.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command lucid-agent is the first process of a guest.
package main

import (
	"os"

	"github.com/lucid-containers/lucid/agent"
)

func main() {
	if err := agent.Run(); err != nil {
		_, _ = os.Stderr.WriteString("lucid-agent: " + err.Error() + "\n")
		os.Exit(1)
	}
}
