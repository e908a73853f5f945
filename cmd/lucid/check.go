package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func (a *app) checkCommand() *cli.Command {
	return &cli.Command{Name: "check", Usage: "say whether this host can run VMs, and how fast", Action: func(_ context.Context, cmd *cli.Command) error { return nil }}
}
