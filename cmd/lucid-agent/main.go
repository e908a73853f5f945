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
