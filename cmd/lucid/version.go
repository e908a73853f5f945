package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v3"
)

const version = "0.1.0"

// commit is set by the Makefile (-ldflags "-X main.commit=...").
var commit = ""

// printVersion writes what go-runc parses: the first line's third word and
// the values after "commit:" and "spec:".
func printVersion(w io.Writer) {
	fmt.Fprintln(w, "lucid version", version)
	if commit != "" {
		fmt.Fprintln(w, "commit:", commit)
	}
	fmt.Fprintln(w, "spec:", specs.Version)
	fmt.Fprintln(w, "go:", runtime.Version())
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 0, exactly); err != nil {
				return err
			}
			printVersion(cmd.Root().Writer)
			return nil
		},
	}
}
