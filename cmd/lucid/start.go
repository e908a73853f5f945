package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func (a *app) startCommand() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "run the process of a created container",
		ArgsUsage: "CONTAINER-ID",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			return c.Start()
		},
	}
}
