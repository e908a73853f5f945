package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/sandbox"
)

// sandboxName is the hidden command that holds a VM.
const sandboxName = runtime.SandboxCommand

// standInName is the hidden command that stands for a detached exec.
const standInName = runtime.StandInCommand

// sandboxMain is the sandbox process. What it returns is the container's exit
// status.
func sandboxMain() int {
	child, err := control.Inherit()
	if errors.Is(err, io.EOF) {
		return 1 // the creator was killed: there is nobody to tell
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lucid:", err)
		return 1
	}
	if child.Launch.Pod != "" {
		return runtime.MemberMain(child)
	}
	level := sandboxLevel(child.Launch.Debug)
	return sandbox.Main(child, newSlog(child.Log, child.Launch.LogJSON, level))
}
