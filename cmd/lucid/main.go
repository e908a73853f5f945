package main

import (
	"context"
	"fmt"
	"os"

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
		Commands: []*cli.Command{
			a.checkCommand(), a.completionCommand(), a.createCommand(), a.deleteCommand(), a.eventsCommand(), a.execCommand(), a.featuresCommand(),
			a.killCommand(), a.listCommand(), a.manCommand(), a.pauseCommand(), a.psCommand(), a.resumeCommand(), a.runCommand(),
			a.specCommand(), a.startCommand(), a.stateCommand(), a.templateCommand(), a.updateCommand(), a.versionCommand(),
			notYet("checkpoint", "save the state of a running container"), notYet("restore", "restore a container from a checkpoint"),
		},
		Action: noCommand,
	}
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
