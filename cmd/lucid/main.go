package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/runtime"
)

const usage = `runs OCI containers, each in a microVM of its own

A container is described by a bundle: a directory with a file config.json and a
root file system. To run one:

    # cd BUNDLE
    # lucid spec
    # lucid run CONTAINER-ID

The ID is a name of your choice, unique on the host. "lucid check" says whether
this host can run VMs.`

func main() {
	// Not through package cli: the sandbox process is to start fast and small.
	if len(os.Args) > 1 && os.Args[1] == sandboxName {
		os.Exit(sandboxMain())
	}
	if len(os.Args) > 1 && os.Args[1] == standInName {
		os.Exit(runtime.StandInMain())
	}
	a := &app{log: stderrLogger(), failed: 1}
	if err := a.command().Run(context.Background(), os.Args); err != nil {
		a.log.fatal(err)
		os.Exit(a.failed)
	}
	os.Exit(a.status)
}

// app is what the commands share.
type app struct {
	log         *logger
	root        string // --root, absolute
	templateDir string // --template-dir, absolute
	status      int    // exit status of a command that succeeded
	failed      int    // and of one that did not
}

func (a *app) command() *cli.Command {
	cli.VersionPrinter = func(cmd *cli.Command) { printVersion(cmd.Root().Writer) }
	return &cli.Command{
		Name:                      "lucid",
		Usage:                     usage,
		Version:                   version,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		Flags:                     globalFlags(),
		Before:                    a.before,
		Writer:                    os.Stdout,
		ErrWriter:                 os.Stderr,
		// Errors are ours to report, and an exec.ExitError is no exit code.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		Commands: called(os.Args, globalFlags(), []*cli.Command{
			a.checkCommand(), a.completionCommand(), a.createCommand(), a.deleteCommand(), a.eventsCommand(), a.execCommand(), a.featuresCommand(),
			a.killCommand(), a.listCommand(), a.manCommand(), a.pauseCommand(), a.psCommand(), a.resumeCommand(), a.runCommand(),
			a.specCommand(), a.startCommand(), a.stateCommand(), a.templateCommand(), a.updateCommand(), a.versionCommand(),
			notYet("checkpoint", "save the state of a running container"), notYet("restore", "restore a container from a checkpoint"),
		}),
		Action: noCommand,
	}
}

// called is the command that the arguments name, alone: package cli prepares each that it
// is given with all its flags, which takes a tenth of what a command takes until it begins. It is all of
// them where the others are spoken of: in the help, after a mistake.
func called(args []string, flags []cli.Flag, all []*cli.Command) []*cli.Command {
	for i := 1; i < len(args); i++ {
		word, isFlag := strings.CutPrefix(args[i], "-")
		if !isFlag {
			at := slices.IndexFunc(all, func(c *cli.Command) bool { return c.Name == word })
			if at < 0 || word == completionName || word == manName {
				return all
			}
			return all[at : at+1]
		}
		name, _, whole := strings.Cut(strings.TrimPrefix(word, "-"), "=")
		at := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if at < 0 {
			return all
		}
		if _, isSwitch := flags[at].(*cli.BoolFlag); !isSwitch && !whole {
			i++ // its value
		}
	}
	return all
}

// Ways to count arguments.
const (
	exactly = iota
	atLeast
	atMost
)

// checkArgs prints the command's help and returns an error unless the number
// of arguments is right. The words are runc's.
func checkArgs(cmd *cli.Command, n, how int) error {
	var text string
	switch {
	case how == exactly && cmd.NArg() != n:
		text = "exactly"
	case how == atLeast && cmd.NArg() < n:
		text = "a minimum of"
	case how == atMost && cmd.NArg() > n:
		text = "a maximum of"
	default:
		return nil
	}
	fmt.Fprint(cmd.Root().Writer, "Incorrect Usage.\n\n")
	_ = cli.ShowSubcommandHelp(cmd)
	return fmt.Errorf("%s: %q requires %s %d argument(s)", os.Args[0], cmd.Name, text, n)
}
