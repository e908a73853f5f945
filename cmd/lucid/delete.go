package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func (a *app) deleteCommand() *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete what a container holds on the host",
		ArgsUsage: "CONTAINER-ID",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also when it runs (it is killed), is half-made or does not exist"},
		},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			r, err := a.runtime()
			if err != nil {
				return err
			}
			return r.Delete(cmd.Args().First(), cmd.Bool("force"))
		},
	}
}
