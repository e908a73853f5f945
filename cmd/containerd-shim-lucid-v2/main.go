// Containerd-shim-lucid-v2 runs containers of containerd and cri-o as VMs: docs/containerd.md. containerd starts it; its
// runtime is called io.containerd.lucid.v2.
package main

import (
	"os"

	"github.com/lucid-containers/lucid/internal/shim"
)

// commit is set by the Makefile.
var commit = "unknown"

func main() { os.Exit(shim.Main(commit)) }
