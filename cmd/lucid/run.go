package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "create a container, run its process and wait for it",
		ArgsUsage: "CONTAINER-ID",
		Flags: append(createFlags(),
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait"},
			&cli.BoolFlag{Name: "keep", Usage: "do not delete the container when it has exited"},
			&cli.BoolFlag{Name: "no-subreaper", Usage: "accepted for runc's callers"},
		),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			detach := cmd.Bool("detach")
			s, err := a.newSession(cmd, detach)
			if err != nil {
				return err
			}
			defer s.close()
			if detach {
				return s.runDetached(ctx)
			}
			a.status, err = s.runForeground(ctx, cmd.Bool("keep"))
			return err
		},
	}
}
