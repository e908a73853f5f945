package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/runtime"
	"github.com/lucid-containers/lucid/internal/wire"
)

func (a *app) eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "print counters of a container, and OOM kills, as JSON lines",
		ArgsUsage: "CONTAINER-ID",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "interval", Value: 5 * time.Second, Usage: "time between two prints of the counters"},
			&cli.BoolFlag{Name: "stats", Usage: "print the counters once"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 1, exactly); err != nil {
				return err
			}
			interval := cmd.Duration("interval")
			if interval <= 0 {
				return errors.New("duration interval must be greater than 0")
			}
			c, err := a.container(cmd)
			if err != nil {
				return err
			}
			return a.events(ctx, c, cmd.Root().Writer, interval, cmd.Bool("stats"))
		},
	}
}

// oomGrace is for the last print of OOM kills, when the container has ended; it may be held back for runtime.OOMInterval.
const oomGrace = 2 * runtime.OOMInterval

func (a *app) events(ctx context.Context, c *runtime.Container, w io.Writer, interval time.Duration, once bool) error {
	out := json.NewEncoder(w)
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == runtime.Stopped {
		return errors.New("container with id " + c.ID() + " is not running")
	}
	kills := make(chan error)
	if !once {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go routineOOM(ctx, c, kills)
	}
	for {
		stats, err := c.Stats()
		switch {
		case errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotExist):
			if once {
				return err
			}
			return lastKills(out, c.ID(), kills)
		case err != nil && once:
			return err
		case err != nil:
			a.log.Warn("no counters", "err", err) // paused, for one
		default:
			if err := out.Encode(event{Type: "stats", ID: c.ID(), Data: statsData(stats)}); err != nil {
				return err
			}
		}
		if once {
			return nil
		}
		next := time.After(interval)
		for waiting := true; waiting; {
			select {
			case <-next:
				waiting = false
			case err := <-kills:
				if errors.Is(err, runtime.ErrNotRunning) {
					return nil
				}
				if err != nil { // the counters say what has become of it
					kills = nil
					continue
				}
				if err := out.Encode(event{Type: "oom", ID: c.ID()}); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// lastKills prints the OOM kills that are not printed when the container has ended: one of them may have ended it. kills is nil
// if nobody tells of them any more.
func lastKills(out *json.Encoder, id string, kills <-chan error) error {
	for limit := time.After(oomGrace); kills != nil; {
		select {
		case err := <-kills:
			if err != nil {
				return nil
			}
			if err := out.Encode(event{Type: "oom", ID: id}); err != nil {
				return err
			}
		case <-limit:
			return nil
		}
	}
	return nil
}

// routineOOM sends a nil when processes of the container have been killed because memory ran out, however many by then,
// and at last why no more will be told.
func routineOOM(ctx context.Context, c *runtime.Container, kills chan<- error) {
	send := func(err error) {
		select {
		case kills <- err:
		case <-ctx.Done():
		}
	}
	send(c.TellOOM(ctx, nil, func() { send(nil) }))
}

// event is one line, as runc prints it.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// The part of runc's data that a guest's cgroup can tell.
type (
	eventData struct {
		CPU    eventCPU    `json:"cpu"`
		Memory eventMemory `json:"memory"`
		Pids   eventPids   `json:"pids"`
	}
	eventCPU struct {
		Usage struct {
			Total  uint64 `json:"total"`  // ns
			Kernel uint64 `json:"kernel"` // ns
			User   uint64 `json:"user"`   // ns
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"` // ns
		} `json:"throttling"`
	}
	eventMemory struct {
		Cache uint64 `json:"cache,omitempty"`
		Usage struct {
			Limit   uint64 `json:"limit"`
			Usage   uint64 `json:"usage,omitempty"`
			Max     uint64 `json:"max,omitempty"`
			Failcnt uint64 `json:"failcnt"`
		} `json:"usage"`
		Raw map[string]uint64 `json:"raw,omitempty"`
	}
	eventPids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	}
)

// noLimit is what runc shows for memory without a limit.
const noLimit = ^uint64(0)

func statsData(s *wire.StatsResult) *eventData {
	const us = 1000 // in ns
	d := &eventData{Pids: eventPids{Current: s.PidsCurrent, Limit: s.PidsMax}}
	d.CPU.Usage.Total, d.CPU.Usage.Kernel, d.CPU.Usage.User = s.CPUUsageUS*us, s.CPUSystemUS*us, s.CPUUserUS*us
	d.CPU.Throttling.Periods, d.CPU.Throttling.ThrottledPeriods = s.CPUPeriods, s.CPUThrottled
	d.CPU.Throttling.ThrottledTime = s.CPUThrottledUS * us
	d.Memory.Cache = s.MemoryFile
	d.Memory.Usage.Usage, d.Memory.Usage.Max = s.MemoryCurrent, s.MemoryPeak
	if d.Memory.Usage.Limit = s.MemoryMax; s.MemoryMax == 0 {
		d.Memory.Usage.Limit = noLimit
	}
	d.Memory.Raw = map[string]uint64{"file": s.MemoryFile, "inactive_file": s.MemoryInactive}
	return d
}
