package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/hostcheck"
)

func (a *app) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "say whether this host can run VMs, and how fast",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 0, exactly); err != nil {
				return err
			}
			report := hostcheck.Gather()
			if report.Err != nil {
				a.status = 1
			}
			return report.Write(cmd.Root().Writer)
		},
	}
}
