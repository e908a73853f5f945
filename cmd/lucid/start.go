package main

import (
	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/runtime"
)

func (a *app) startCommand() *cli.Command {
	return a.oneContainer("start", "run the process of a created container", (*runtime.Container).Start)
}
