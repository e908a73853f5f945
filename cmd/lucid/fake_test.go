package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/wire"
)

// fakePrefix begins the ID of a container whose sandbox process is this test
// binary: it keeps to the protocol of package control and has no VM.
const fakePrefix = "fake-"

// floodPrefix begins the ID of one whose guest tells of OOM kills without end, for some time after its own, too.
const floodPrefix = fakePrefix + "flood-"

func isFakeSandbox() bool {
	return len(os.Args) > 2 && os.Args[1] == sandboxName && strings.HasPrefix(os.Args[2], fakePrefix)
}

// fakeSandbox obeys status, start, kill, pause and resume. Its guest has had two OOM kills.
type fakeSandbox struct {
	mu    sync.Mutex
	state control.State // protected by mu
	gone  chan struct{}
	flood bool
}

func fakeSandboxMain() int {
	child, err := control.Inherit()
	if err != nil {
		return 1
	}
	child.Orphaned(func() { os.Exit(1) })
	l, err := control.Listen(child.StateDir)
	if err != nil {
		return 1
	}
	f := &fakeSandbox{state: control.StateCreated, gone: make(chan struct{}), flood: strings.HasPrefix(os.Args[2], floodPrefix)}
	s := control.Serve(l, f, slog.New(slog.DiscardHandler))
	if err := child.Ready(control.Ready{}); err != nil {
		return 1
	}
	<-f.gone
	_ = s
	return 137
}

func (f *fakeSandbox) Control(_ context.Context, method string, params json.RawMessage, _ []*os.File) (any, error) {
	if method == control.MethodOOM {
		return f.awaitOOM(params)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	paused := f.state == control.StatePaused
	switch method {
	case control.MethodStatus:
		return control.Status{State: f.state}, nil
	case control.MethodStart:
		if f.state != control.StateCreated {
			return nil, &control.Error{Kind: control.KindRunning}
		}
		f.state = control.StateRunning
	case control.MethodPause:
		f.state = control.StatePaused
	case control.MethodResume:
		if !paused {
			return nil, &control.Error{Kind: control.KindPaused}
		}
		f.state = control.StateRunning
	case control.MethodKill:
		var p control.KillParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		if p.Signal == int(unix.SIGKILL) {
			f.state = control.StateStopped
			after := 5 * time.Millisecond // after the answer is sent
			if f.flood {
				after = 300 * time.Millisecond
			}
			time.AfterFunc(after, func() { close(f.gone) })
		}
	case control.MethodStats:
		return wire.StatsResult{MemoryOOMKills: 2}, nil
	case control.MethodPids:
		return control.Pids{Pids: []int{os.Getpid()}}, nil
	case control.MethodExec:
		if paused {
			return nil, &control.Error{Kind: control.KindPaused}
		}
		return nil, &control.Error{Kind: control.KindGuest, Message: `exec: "nosuch": executable file not found in $PATH`}
	default:
		return nil, &control.Error{Kind: control.KindBadRequest, Message: "the fake does not know " + method}
	}
	return nil, nil
}

func (f *fakeSandbox) awaitOOM(params json.RawMessage) (any, error) {
	var seen control.OOM
	if err := json.Unmarshal(params, &seen); err != nil {
		return nil, err
	}
	if f.flood {
		time.Sleep(time.Millisecond)
		return control.OOM{Kills: seen.Kills + 1}, nil
	}
	if seen.Kills < 2 {
		return control.OOM{Kills: 2}, nil
	}
	<-f.gone
	return nil, &control.Error{Kind: control.KindNotRunning, Message: "container not running"}
}
