package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"
)

func (a *app) psCommand() *cli.Command {
	one := 1
	return &cli.Command{
		Name:         "ps",
		Usage:        "list the processes on the host that stand for those of a container",
		ArgsUsage:    "CONTAINER-ID [PS-OPTION...]",
		StopOnNthArg: &one,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "table or json"},
		},
		Description: "One process holds the VM and stands for the container's own; one stands for each exec.\n" +
			"What runs inside the VM has no number on the host: see it with lucid exec CONTAINER-ID ps.",
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, atLeast); err != nil {
				return err
			}
			format := cmd.String("format")
			if format != "table" && format != "json" {
				return errors.New("invalid format option")
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			pids, err := c.Pids()
			if err != nil {
				return err
			}
			w := cmd.Root().Writer
			if format == "json" {
				return json.NewEncoder(w).Encode(pids)
			}
			args := cmd.Args().Tail()
			if len(args) == 0 {
				args = []string{"-ef"}
			}
			out, err := exec.CommandContext(ctx, "ps", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
			}
			return filterPs(w, string(out), pids)
		},
	}
}

// filterPs prints the lines of ps's output that are about certain processes.
func filterPs(w io.Writer, out string, pids []int) error {
	lines := strings.Split(out, "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Fprintln(w, lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprintln(w, line)
		}
	}
	return nil
}
