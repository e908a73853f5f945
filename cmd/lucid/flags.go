package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/template"
)

// globalFlags are runc's, and lucid's own. They are accepted before and after
// the command's name.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "debug", Usage: "log more, and print a timeline of the VM when a container that was run ends"},
		&cli.StringFlag{Name: "log", Usage: "append to this log `FILE` (default: standard error)"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "text or json"},
		&cli.StringFlag{Name: "root", Value: defaultRoot(), Usage: "`DIR` for the state of containers, best on a tmpfs"},
		&cli.BoolFlag{Name: "systemd-cgroup", Usage: "have systemd make the cgroup, a scope; cgroupsPath is SLICE:PREFIX:NAME"},
		&cli.StringFlag{Name: "cgroup-manager", Usage: "cgroupfs, or systemd for --systemd-cgroup: crun's way to say it"},
		&cli.StringFlag{Name: "rootless", Value: "auto", Usage: "true, false or auto, which it always is: accepted for runc's callers"},

		&cli.StringFlag{Name: "kernel", Usage: "boot this guest kernel, a vmlinux or bzImage `FILE`"},
		&cli.StringFlag{Name: "initramfs", Usage: "use this initramfs `FILE`, with the agent in it"},
		&cli.StringFlag{Name: "transport", Usage: "carry control and stdio over vsock or serial"},
		&cli.StringFlag{Name: "template", Usage: "start containers from a saved VM: `auto|off|NAME` (default: $LUCID_TEMPLATE, or off); see lucid template"},
		&cli.StringFlag{Name: templateDirFlag, Value: runtime.DefaultTemplates(), Usage: "`DIR` of the saved VMs"},
		&cli.StringFlag{Name: "profile", Usage: "write a CPU profile of the sandbox, for go tool pprof, and a histogram of the VM's exits into `DIR`"},
		&cli.BoolFlag{Name: "debug-uart", Usage: "give the guest kernel a serial port for its earliest messages"},
	}
}

// systemRoot is root's --root.
const systemRoot = "/run/lucid"

// defaultRoot follows runc: XDG_RUNTIME_DIR only for those who are not root.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return filepath.Join(dir, "lucid")
	}
	return systemRoot
}

// before looks at the global flags, before any command runs.
func (a *app) before(ctx context.Context, cmd *cli.Command) (context.Context, error) {
	format := cmd.String("log-format")
	if format != "" && format != "text" && format != "json" {
		return ctx, errors.New("invalid log-format: " + format)
	}
	if r := cmd.String("rootless"); r != "" && strings.ToLower(r) != "auto" {
		if _, err := strconv.ParseBool(r); err != nil {
			return ctx, fmt.Errorf("--rootless: %q is neither true, false nor auto", r)
		}
	}
	switch m := cmd.String("cgroup-manager"); m {
	case "", "cgroupfs", "systemd":
	case "disabled":
		return ctx, errors.New("--cgroup-manager: disabled is not supported: leave linux.cgroupsPath out")
	default:
		return ctx, fmt.Errorf("--cgroup-manager: %q is neither cgroupfs nor systemd", m)
	}
	log, err := openLogger(cmd.String("log"), format == "json", cmd.Bool("debug"))
	if err != nil {
		return ctx, err
	}
	a.log = log
	if a.root, err = filepath.Abs(cmd.String("root")); err != nil {
		return ctx, err
	}
	if a.root == "/" {
		return ctx, errors.New("option --root argument should not be set to /")
	}
	if !cmd.IsSet("root") && a.root != systemRoot {
		// The XDG specification lets files without the sticky bit be removed
		// when they are old.
		if err := errors.Join(os.MkdirAll(a.root, 0o700), os.Chmod(a.root, 0o700|os.ModeSticky)); err != nil {
			return ctx, fmt.Errorf("$XDG_RUNTIME_DIR must be writable: %w", err)
		}
	}
	if t := cmd.String("transport"); t != "" && t != "vsock" && t != "serial" {
		return ctx, fmt.Errorf("--transport: %q is neither vsock nor serial", t)
	}
	if t := cmd.String("template"); t != "" {
		if err := template.CheckChoice(t); err != nil {
			return ctx, fmt.Errorf("--template: %w", err)
		}
	}
	a.templateDir, err = filepath.Abs(cmd.String(templateDirFlag))
	return ctx, err
}

// systemdCgroup says who makes cgroups.
func systemdCgroup(cmd *cli.Command) bool {
	return cmd.Bool("systemd-cgroup") || cmd.String("cgroup-manager") == "systemd"
}

// runtime is the containers under --root.
func (a *app) runtime() (*runtime.Runtime, error) {
	return runtime.New(runtime.Config{
		Root:       a.root,
		Sandbox:    []string{runtime.OwnProgram, sandboxName},
		StandIn:    []string{runtime.OwnProgram, standInName},
		SandboxEnv: runtime.SandboxEnv(),
		Templates:  a.templateDir,
		Log:        a.log.Logger,
	})
}

// container loads the container that the first argument names.
func (a *app) container(cmd *cli.Command) (*runtime.Container, error) {
	r, err := a.runtime()
	if err != nil {
		return nil, err
	}
	return r.Load(cmd.Args().First())
}
