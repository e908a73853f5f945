package main

// The completions and the manual page are made from the command definitions:
// they cannot say anything else than --help.

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// option is a flag as the shells and the manual need it.
type option struct {
	long, short string // without dashes; short may be empty
	usage       string
	value       string // what it takes, such as FILE; empty for none
}

// verb is a command likewise.
type verb struct {
	name, usage, args, description string
	options                        []option
}

// takesID says whether the first argument is a container that exists.
func (v verb) takesID() bool {
	return strings.HasPrefix(v.args, "CONTAINER-ID") && v.name != "create" && v.name != "run"
}

// verbs are the commands that a user is to see.
func verbs(root *cli.Command) []verb {
	var out []verb
	for _, c := range root.Commands {
		if c.Hidden {
			continue
		}
		v := verb{c.Name, c.Usage, c.ArgsUsage, c.Description, nil}
		flags := c.Flags
		for i, sub := range c.Commands {
			if i > 0 {
				v.args += "|"
			}
			v.args += sub.Name
			v.description += "\n" + strings.TrimSpace(c.Name+" "+sub.Name+" "+sub.ArgsUsage) + ": " + sub.Usage + "."
			flags = append(flags, sub.Flags...)
		}
		v.options = options(flags)
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b verb) int { return strings.Compare(a.name, b.name) })
	return out
}

func options(flags []cli.Flag) []option {
	out := make([]option, 0, len(flags)+1)
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		o := option{usage: strings.ReplaceAll(doc.GetUsage(), "`", "")}
		for _, name := range f.Names() {
			if len(name) == 1 {
				o.short = name
			} else {
				o.long = name
			}
		}
		if doc.TakesValue() {
			o.value = "VALUE"
			if _, rest, ok := strings.Cut(doc.GetUsage(), "`"); ok {
				o.value, _, _ = strings.Cut(rest, "`")
			}
		}
		out = append(out, o)
	}
	return append(out, option{long: "help", short: "h", usage: "show help"})
}

// files says what kind of file a value is, in words of its placeholder.
func (o option) files() bool { return o.value == "FILE" || o.value == "SOCKET" || o.value == "DIR" }

// The commands that speak of all others.
const completionName, manName = "completion", "man"

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      completionName,
		Usage:     "print a completion script",
		ArgsUsage: "bash|zsh|fish",
		Description: "For bash: lucid completion bash >/etc/bash_completion.d/lucid\n" +
			"For zsh: lucid completion zsh >DIR/_lucid, with DIR in fpath\n" +
			"For fish: lucid completion fish >~/.config/fish/completions/lucid.fish",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			script := map[string]func([]option, []verb) string{
				"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion,
			}[cmd.Args().First()]
			if script == nil {
				return fmt.Errorf("%q is not a shell that completions exist for: bash, zsh and fish are", cmd.Args().First())
			}
			_, err := fmt.Fprint(cmd.Root().Writer, script(options(globalFlags()), verbs(cmd.Root())))
			return err
		},
	}
}

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name:  manName,
		Usage: "print the manual page, for man -l -",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 0, exactly); err != nil {
				return err
			}
			_, err := fmt.Fprint(cmd.Root().Writer, manual(options(globalFlags()), verbs(cmd.Root())))
			return err
		},
	}
}

// roff escapes text for a line of troff.
func roff(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\e`), "-", `\-`)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func manual(global []option, commands []verb) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	list := func(options []option) {
		for _, o := range options {
			line(".TP")
			var names []string
			if o.short != "" {
				names = append(names, `\fB\-`+o.short+`\fR`)
			}
			if o.long != "" {
				names = append(names, `\fB\-\-`+roff(o.long)+`\fR`)
			}
			text := strings.Join(names, ", ")
			if o.value != "" {
				text += ` \fI` + roff(o.value) + `\fR`
			}
			line("%s", text)
			line("%s", roff(o.usage))
		}
	}
	line(`.TH LUCID 1 "" "lucid %s" "User Commands"`, version)
	line(".SH NAME\nlucid \\- %s", roff(strings.SplitN(usage, "\n", 2)[0]))
	line(".SH SYNOPSIS\n.B lucid\n[\\fIGLOBAL OPTION\\fR...] \\fICOMMAND\\fR [\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]")
	line(".SH DESCRIPTION")
	for _, paragraph := range strings.Split(usage, "\n\n")[1:] {
		if strings.HasPrefix(paragraph, "    ") {
			line(".PP\n.nf\n.RS\n%s\n.RE\n.fi", roff(strings.ReplaceAll(paragraph, "    ", "")))
			continue
		}
		line(".PP\n%s", roff(paragraph))
	}
	line(".SH GLOBAL OPTIONS")
	list(global)
	line(".SH COMMANDS")
	for _, v := range commands {
		line(".SS %s", strings.TrimSpace(roff("lucid "+v.name+" "+v.args)))
		line("%s.", roff(v.usage))
		for paragraph := range strings.Lines(v.description) {
			line(".br\n%s", roff(strings.TrimSpace(paragraph)))
		}
		list(v.options)
	}
	line(".SH EXIT STATUS")
	line(".B run\nand\n.B exec\nexit with the status of the process, or 128 plus the number of the signal that ended it.")
	line("An exec that fails exits with 255, any other failure with 1.")
	line(".SH FILES\n.TP\n.I %s\nthe state of root's containers\n.SH SEE ALSO\n.BR runc (8)", systemRoot)
	return b.String()
}
