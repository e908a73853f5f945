package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/runtime"
)

func (a *app) killCommand() *cli.Command {
	one := 1
	return &cli.Command{
		Name:         "kill",
		Usage:        "send a signal (default: SIGTERM) to the container's process",
		ArgsUsage:    "CONTAINER-ID [SIGNAL]",
		StopOnNthArg: &one,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "no error when the container does not run", Hidden: true},
		},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, atLeast); err != nil {
				return err
			}
			if err := checkArgs(cmd, 2, atMost); err != nil {
				return err
			}
			name := cmd.Args().Get(1)
			if name == "" {
				name = "SIGTERM"
			}
			sig, err := parseSignal(name)
			if err != nil {
				return err
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			err = c.Signal(sig)
			if errors.Is(err, runtime.ErrNotRunning) && cmd.Bool("all") {
				return nil
			}
			return err
		},
	}
}

// maxSignal is SIGRTMAX of Linux.
const maxSignal = 64

// parseSignal accepts 15, TERM, sigterm and the like.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > maxSignal {
			return 0, fmt.Errorf("unknown signal %q", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
