package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/assets"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/template"
)

func (a *app) templateCommand() *cli.Command {
	return &cli.Command{
		Name:        "template",
		Usage:       "keep saved VMs, from which containers start without a boot: --template",
		Description: "A template is a VM that has booted and has seen no container. It is for one lucid, guest kernel, initramfs,\nsize of VM and host; `list` and `show` say when something has changed. All containers that start from one share\nthe memory that they do not write, and can tell by timing what others have touched.",
		Commands: []*cli.Command{
			a.templateCreate(), a.templateList(), a.templateShow(), a.templateVerify(), a.templateRemove(), a.templatePrune(),
		},
		Action: noCommand,
	}
}

// noCommand answers a command line that names no command: with help, and an
// error if it tried to.
func noCommand(_ context.Context, cmd *cli.Command) error {
	show := cli.ShowSubcommandHelp
	if cmd.Root() == cmd {
		show = cli.ShowRootCommandHelp
	}
	if err := show(cmd); err != nil || !cmd.Args().Present() {
		return err
	}
	return fmt.Errorf("no such command: %q", cmd.Args().First())
}

// templateDirFlag is there for who looks at templates and who uses them.
const templateDirFlag = "template-dir"

func (a *app) templateCreate() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "boot a VM, save it and print the template's name; nothing is done if it is there",
		ArgsUsage: "[NAME]",
		Description: "Without a NAME it is the one that --template auto uses for such a VM: one of 128 MiB and one vCPU serves all that are not smaller.\n" +
			"With a NAME it has the size that the flags say, 128 MiB and one vCPU without them.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Usage: "memory of the smallest VM in `BYTES`, with k, m or g behind it"},
			&cli.IntFlag{Name: "vcpus", Usage: "vCPUs of the smallest VM", Value: oci.DefaultVCPUs},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, atMost); err != nil {
				return err
			}
			cfg, err := a.templateConfig(cmd)
			if err != nil {
				return err
			}
			r, err := a.runtime()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(ctx)
			defer stop()
			dir, err := r.MakeTemplate(ctx, cmd.Args().First(), cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.Root().Writer, filepath.Base(dir))
			return err
		},
	}
}

// templateConfig is the VM that the flags describe.
func (a *app) templateConfig(cmd *cli.Command) (runtime.CreateConfig, error) {
	cfg := runtime.CreateConfig{SandboxLog: a.log.file, LogJSON: a.log.json}
	memory := oci.DefaultMemory
	if s := cmd.String("memory"); s != "" {
		var err error
		if memory, err = oci.ParseSize(s); err != nil {
			return cfg, fmt.Errorf("--memory: %w", err)
		}
	}
	vm, err := oci.NewVM(cmd.Int("vcpus"), memory)
	var field *oci.FieldError
	if errors.As(err, &field) {
		return cfg, fmt.Errorf("--%s: %s", field.Field, field.Text)
	}
	vm.DebugUART = cmd.Bool("debug-uart")
	if t := cmd.String("transport"); t != "" {
		vm.Transport = t
	}
	cfg.Plan = &oci.Plan{VM: vm}
	if cfg.Kernel, err = assets.Find(assets.Kernel, cmd.String("kernel"), ""); err != nil {
		return cfg, err
	}
	cfg.Initramfs, err = assets.Find(assets.Initramfs, cmd.String("initramfs"), "")
	return cfg, err
}

func (a *app) templateList() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the templates, and why one is of no use any more",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "table or json"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print names only"},
		},
		Action: a.withTemplates(0, exactly, func(s *template.Store, cmd *cli.Command) error {
			all, err := s.List()
			if err != nil {
				return err
			}
			return printTemplates(cmd.Root().Writer, all, cmd.String("format"), cmd.Bool("quiet"))
		}),
	}
}

// withTemplates is the action of a command about the store.
func (a *app) withTemplates(n, how int, do func(*template.Store, *cli.Command) error) cli.ActionFunc {
	return func(_ context.Context, cmd *cli.Command) error {
		if err := checkArgs(cmd, n, how); err != nil {
			return err
		}
		s, err := template.New(a.templateDir)
		if err != nil {
			return err
		}
		return do(s, cmd)
	}
}

func printTemplates(w io.Writer, all []template.Info, format string, quiet bool) error {
	if quiet {
		for _, t := range all {
			fmt.Fprintln(w, t.Name)
		}
		return nil
	}
	switch format {
	case "table":
		tw := tabwriter.NewWriter(w, 12, 1, 3, ' ', 0)
		fmt.Fprint(tw, "NAME\tMEMORY\tVCPUS\tDISK\tCREATED\tPROBLEM\n")
		for _, t := range all {
			problem := t.Problem
			if problem == "" {
				problem = "-"
			}
			if t.Format == 0 { // unreadable
				fmt.Fprintf(tw, "%s\t-\t-\t%.1f MiB\t-\t%s\n", t.Name, float64(t.Disk)/(1<<20), problem)
				continue
			}
			fmt.Fprintf(tw, "%s\t%d MiB\t%d\t%.1f MiB\t%s\t%s\n", t.Name, t.Key.Memory>>20, t.Key.VCPUs, float64(t.Disk)/(1<<20), t.Created.Format(time.RFC3339), problem)
		}
		return tw.Flush()
	case "json":
		return json.NewEncoder(w).Encode(all)
	default:
		return errors.New("invalid format option")
	}
}

func (a *app) templateShow() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "print what a template is for, in JSON",
		ArgsUsage: "NAME",
		Action: a.withTemplates(1, exactly, func(s *template.Store, cmd *cli.Command) error {
			t, err := s.Show(cmd.Args().First())
			if err != nil {
				return err
			}
			e := json.NewEncoder(cmd.Root().Writer)
			e.SetIndent("", "  ")
			return e.Encode(t)
		}),
	}
}

func (a *app) templateVerify() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare templates with the hashes that were taken when they were made; without names, all",
		ArgsUsage: "[NAME...]",
		Action: a.withTemplates(0, atLeast, func(s *template.Store, cmd *cli.Command) error {
			names := cmd.Args().Slice()
			if len(names) == 0 {
				all, err := s.List()
				if err != nil {
					return err
				}
				for _, t := range all {
					names = append(names, t.Name)
				}
			}
			return eachName(names, func(name string) error {
				err := s.Verify(name)
				if err == nil {
					_, err = fmt.Fprintln(cmd.Root().Writer, name+": ok")
				}
				return err
			})
		}),
	}
}

func (a *app) templateRemove() *cli.Command {
	return &cli.Command{
		Name:      "remove",
		Usage:     "remove templates; containers that have started from one go on",
		ArgsUsage: "NAME...",
		Action: a.withTemplates(1, atLeast, func(s *template.Store, cmd *cli.Command) error {
			return eachName(cmd.Args().Slice(), s.Remove)
		}),
	}
}

// eachName does the rest also if one fails.
func eachName(names []string, do func(string) error) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, do(name))
	}
	return errors.Join(errs...)
}

func (a *app) templatePrune() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove the templates that are of no use any more, and print their names",
		Action: a.withTemplates(0, exactly, func(s *template.Store, cmd *cli.Command) error {
			names, err := s.Prune()
			for _, name := range names {
				fmt.Fprintln(cmd.Root().Writer, name)
			}
			return err
		}),
	}
}
