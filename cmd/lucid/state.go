package main

import (
	"context"
	"encoding/json"

	"github.com/urfave/cli/v3"
)

func (a *app) stateCommand() *cli.Command {
	return &cli.Command{
		Name:      "state",
		Usage:     "print the state of a container",
		ArgsUsage: "CONTAINER-ID",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			state, err := c.State()
			if err != nil {
				return err
			}
			state.Owner = owner(c.Dir())
			data, err := json.MarshalIndent(state, "", "  ")
			if err != nil {
				return err
			}
			_, err = cmd.Root().Writer.Write(data)
			return err
		},
	}
}
