package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/runtime"
)

func (a *app) pauseCommand() *cli.Command {
	return a.oneContainer("pause", "stop the CPUs of a container's VM", (*runtime.Container).Pause)
}

func (a *app) resumeCommand() *cli.Command {
	return a.oneContainer("resume", "let a paused container go on", (*runtime.Container).Resume)
}

// oneContainer is a command that does one thing to a container.
func (a *app) oneContainer(name, usage string, do func(*runtime.Container) error) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "CONTAINER-ID",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			return do(c)
		},
	}
}

// notYet is a command of runc's that lucid does not have. Whatever follows it
// is taken, so that the answer is about that and not about a flag.
func notYet(name, usage string) *cli.Command {
	return &cli.Command{
		Name:            name,
		Usage:           usage + " (not yet)",
		SkipFlagParsing: true,
		Hidden:          true,
		Action: func(context.Context, *cli.Command) error {
			return errors.New(name + " is not supported yet")
		},
	}
}
