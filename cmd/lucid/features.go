package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/oci/seccomp"
)

func (a *app) featuresCommand() *cli.Command {
	return &cli.Command{
		Name:  "features",
		Usage: "print what this runtime supports, as JSON",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 0, exactly); err != nil {
				return err
			}
			e := json.NewEncoder(cmd.Root().Writer)
			e.SetIndent("", "    ")
			return e.Encode(supported())
		},
	}
}

// supported follows the runtime specification, features-linux.md. What is
// missing here is false or empty: nothing is claimed that the guest does not
// do.
func supported() *features.Features {
	yes, no := true, false
	f := &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  slices.Sorted(slices.Values(mountOptions)),
		Linux: &features.Linux{
			Namespaces: []string{
				string(specs.CgroupNamespace), string(specs.IPCNamespace), string(specs.MountNamespace),
				string(specs.NetworkNamespace), string(specs.PIDNamespace), string(specs.TimeNamespace),
				string(specs.UserNamespace), string(specs.UTSNamespace),
			},
			Cgroup: &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &no},
			Seccomp: &features.Seccomp{
				Enabled: &yes, Actions: seccomp.Actions, Operators: seccomp.Operators, Archs: seccomp.Architectures,
				KnownFlags: seccomp.Flags, SupportedFlags: seccomp.Flags,
			},
			Apparmor:        &features.Apparmor{Enabled: &no},
			Selinux:         &features.Selinux{Enabled: &no},
			IntelRdt:        &features.IntelRdt{Enabled: &no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &no}},
			NetDevices:      &features.NetDevices{Enabled: &no},
		},
		Annotations: map[string]string{"org.lucid-containers.lucid.version": version},
	}
	for _, c := range capability.ListKnown() {
		f.Linux.Capabilities = append(f.Linux.Capabilities, "CAP_"+strings.ToUpper(c.String()))
	}
	return f
}

// mountOptions are those of agent/container/options.go.
var mountOptions = []string{
	"async", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "mand", "noatime", "nodev",
	"nodiratime", "noexec", "nomand", "nosuid", "nosymfollow", "private", "rbind", "rdev", "relatime", "rexec",
	"rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw",
	"rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave",
	"strictatime", "suid", "symfollow", "sync", "unbindable",
}
