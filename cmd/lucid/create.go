package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func bundleFlag() cli.Flag {
	return &cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "the bundle's `DIR` (default: the current directory)"}
}

// createFlags are those of create and run.
func createFlags() []cli.Flag {
	return []cli.Flag{
		bundleFlag(),
		&cli.StringFlag{Name: "config", Aliases: []string{"f"}, Usage: "read `FILE`, as crun does, instead of the bundle's config.json"},
		&cli.StringFlag{Name: "console-socket", Usage: "send the master end of the container's terminal to this AF_UNIX `SOCKET`"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "send a pidfd of the container's host process to this AF_UNIX `SOCKET`"},
		&cli.StringFlag{Name: "pid-file", Usage: "write the pid of the container's host process to this `FILE`"},
		&cli.BoolFlag{Name: "no-pivot", Usage: "accepted for runc's callers"},
		&cli.BoolFlag{Name: "no-new-keyring", Usage: "accepted for runc's callers"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "accepted for runc's callers: host files cannot be passed into a VM"},
	}
}

func (a *app) createCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create a container; start runs its process",
		ArgsUsage: "CONTAINER-ID",
		Flags:     createFlags(),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			ctx, stop := interruptible(ctx)
			defer stop()
			s, err := a.newSession(cmd, true)
			if err != nil {
				return err
			}
			defer s.close()
			_, err = s.create(ctx)
			return err
		},
	}
}
