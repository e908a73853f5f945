package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/oci"
)

func (a *app) updateCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "resources", Aliases: []string{"r"}, Usage: "take linux.resources from a JSON `FILE`, or from standard input (-); other flags are then ignored"},
		&cli.StringFlag{Name: "cpu-period", Usage: "CPU period in `MICROSECONDS`"},
		&cli.StringFlag{Name: "cpu-quota", Usage: "CPU time in `MICROSECONDS` per period"},
		&cli.StringFlag{Name: "cpu-share", Usage: "relative weight of CPU time"},
		&cli.StringFlag{Name: "memory", Usage: "memory limit in `BYTES`, with k, m or g behind it"},
		&cli.StringFlag{Name: "memory-reservation", Usage: "soft memory limit in `BYTES`"},
		&cli.StringFlag{Name: "memory-swap", Usage: "limit of memory and swap together in `BYTES`"},
		&cli.StringFlag{Name: "pids-limit", Usage: "largest number of processes"},
		&cli.StringFlag{Name: "cpu-burst", Usage: "CPU time in `MICROSECONDS` that may be saved up"},
		&cli.StringFlag{Name: "cpu-idle", Usage: "1: only what others leave of the CPU time"},
		&cli.StringFlag{Name: "cpuset-cpus", Usage: "run the VM on these `CPUS` of the host, such as 0-2,7"},
		&cli.StringFlag{Name: "cpuset-mems", Usage: "use the memory of these `NODES` of the host"},
		&cli.StringFlag{Name: "blkio-weight", Usage: "weight of the VM's input and output on the host, 10 to 1000"},
		&cli.StringFlag{Name: "kernel-memory", Hidden: true},
		&cli.StringFlag{Name: "kernel-memory-tcp", Hidden: true},
	}
	for _, name := range updateNotYet {
		flags = append(flags, &cli.StringFlag{Name: name, Usage: "not supported yet"})
	}
	return &cli.Command{
		Name:      "update",
		Usage:     "change limits of a container, inside its VM and of its cgroup on the host",
		ArgsUsage: "CONTAINER-ID",
		Flags:     flags,
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			res, err := updateResources(cmd)
			if err != nil {
				return err
			}
			if err := oci.ValidateResources(res); err != nil {
				var field *oci.FieldError
				if errors.As(err, &field) {
					field.File = cmd.String("resources") // no flag makes what is wrong here
				}
				return err
			}
			for _, field := range oci.IgnoredInResources(res) {
				a.log.Info(oci.NoEffect(field))
			}
			return c.Update(res)
		},
	}
}

// updateNotYet are flags of runc's for what has no limit here.
var updateNotYet = []string{"cpu-rt-period", "cpu-rt-runtime", "l3-cache-schema", "mem-bw-schema"}

func updateResources(cmd *cli.Command) (*specs.LinuxResources, error) {
	if path := cmd.String("resources"); path != "" {
		return readResources(path)
	}
	for _, name := range updateNotYet {
		if cmd.IsSet(name) {
			return nil, errors.New("--" + name + " is not supported yet")
		}
	}
	var cpu specs.LinuxCPU
	var mem specs.LinuxMemory
	var pids specs.LinuxPids
	r := &specs.LinuxResources{}
	for _, f := range []struct {
		name string
		set  func(int64)
		size bool
	}{
		{"cpu-period", func(n int64) { v := uint64(n); cpu.Period, r.CPU = &v, &cpu }, false},
		{"cpu-quota", func(n int64) { cpu.Quota, r.CPU = &n, &cpu }, false},
		{"cpu-burst", func(n int64) { v := uint64(n); cpu.Burst, r.CPU = &v, &cpu }, false},
		{"cpu-idle", func(n int64) { cpu.Idle, r.CPU = &n, &cpu }, false},
		{"blkio-weight", func(n int64) { v := uint16(n); r.BlockIO = &specs.LinuxBlockIO{Weight: &v} }, false},
		{"cpu-share", func(n int64) { v := uint64(n); cpu.Shares, r.CPU = &v, &cpu }, false},
		{"memory", func(n int64) { mem.Limit, r.Memory = &n, &mem }, true},
		{"memory-reservation", func(n int64) { mem.Reservation, r.Memory = &n, &mem }, true},
		{"memory-swap", func(n int64) { mem.Swap, r.Memory = &n, &mem }, true},
		{"pids-limit", func(n int64) { pids.Limit, r.Pids = &n, &pids }, false},
	} {
		text := cmd.String(f.name)
		if text == "" {
			continue
		}
		n, err := parseAmount(text, f.size)
		if err != nil {
			return nil, fmt.Errorf("invalid value for %s: %w", f.name, err)
		}
		if f.name == "blkio-weight" && (n < 0 || n > math.MaxUint16) {
			return nil, fmt.Errorf("invalid value for %s: %q is out of range", f.name, text)
		}
		f.set(n)
	}
	if cpus, mems := cmd.String("cpuset-cpus"), cmd.String("cpuset-mems"); cpus != "" || mems != "" {
		cpu.Cpus, cpu.Mems, r.CPU = cpus, mems, &cpu
	}
	return r, nil
}

// parseAmount reads a number; a size may have a unit, of 1024.
func parseAmount(text string, size bool) (int64, error) {
	digits, factor := text, int64(1)
	if size {
		digits = strings.TrimSuffix(strings.ToLower(text), "b")
		for i, unit := range []string{"k", "m", "g", "t"} {
			if d, ok := strings.CutSuffix(digits, unit); ok {
				digits, factor = d, 1<<(10*(i+1))
				break
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, err
	}
	if n < -1 || n > (1<<63-1)/factor {
		return 0, fmt.Errorf("%q is out of range", text)
	}
	if n == -1 {
		return n, nil
	}
	return n * factor, nil
}

func readResources(path string) (*specs.LinuxResources, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, err
	}
	r := &specs.LinuxResources{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	return r, nil
}
