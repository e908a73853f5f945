package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/runtime"
)

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the containers under --root",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "table or json"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
		},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 0, exactly); err != nil {
				return err
			}
			states, err := a.states(cmd.IsSet("root"))
			if err != nil {
				return err
			}
			return printStates(cmd.Root().Writer, states, cmd.String("format"), cmd.Bool("quiet"))
		},
	}
}

// states loads all containers. A root that was named must exist; the default
// one comes with the first container.
func (a *app) states(named bool) ([]runtime.State, error) {
	r, err := a.runtime()
	if err != nil {
		return nil, err
	}
	failed := func(id string, err error) { a.log.Warn("load container "+id, "err", err) }
	all, err := r.List(failed)
	if errors.Is(err, os.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var states []runtime.State // nil prints as null, as runc does
	for _, c := range all {
		state, err := c.State()
		if err != nil {
			if !errors.Is(err, runtime.ErrNotExist) {
				failed(c.ID(), err)
			}
			continue
		}
		state.Owner = owner(c.Dir())
		states = append(states, state)
	}
	return states, nil
}

// owner names the user of a state directory.
func owner(dir string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid
}

func printStates(w io.Writer, states []runtime.State, format string, quiet bool) error {
	if quiet {
		for _, s := range states {
			fmt.Fprintln(w, s.ID)
		}
		return nil
	}
	switch format {
	case "table":
		tw := tabwriter.NewWriter(w, 12, 1, 3, ' ', 0)
		fmt.Fprint(tw, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range states {
			fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\n",
				s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return tw.Flush()
	case "json":
		return json.NewEncoder(w).Encode(states)
	default:
		return errors.New("invalid format option")
	}
}
