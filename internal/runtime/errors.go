package runtime

import (
	"errors"
	"fmt"
)

// Texts that containerd, moby, podman and cri-o match. They are runc's.
const (
	textNotExist       = "container does not exist"
	textExist          = "container with given ID already exists"
	textNotRunning     = "container not running"
	textNotPaused      = "container not paused"
	textExecStopped    = "cannot exec in a stopped container"
	textExecPaused     = "cannot exec in a paused container (use --ignore-paused to override)"
	textExecCreated    = "cannot exec in a container that has not been started"
	textInvalidID      = "invalid container ID format"
	textEmptyID        = "container id cannot be empty"
	textStartRunning   = "cannot start an already running container"
	textStartStopped   = "cannot start a container that has stopped"
	textStartOther     = "cannot start a container in the %s state"
	textDeleteRunning  = "cannot delete container %s that is not stopped: %s"
	textStillRunning   = "container init still running"
	textGoneInCreation = "container was deleted while it was being created"
)

// Sentinels. Their texts are matched by callers.
var (
	ErrNotExist     = errors.New(textNotExist)
	ErrExist        = errors.New(textExist)
	ErrNotRunning   = errors.New(textNotRunning)
	ErrNotPaused    = errors.New(textNotPaused)
	ErrExecStopped  = errors.New(textExecStopped)
	ErrExecPaused   = errors.New(textExecPaused)
	ErrExecCreated  = errors.New(textExecCreated)
	ErrInvalidID    = errors.New(textInvalidID)
	ErrEmptyID      = errors.New(textEmptyID)
	ErrStartRunning = errors.New(textStartRunning)
	ErrStartStopped = errors.New(textStartStopped)
)

// NotStoppedError refuses to delete a container that still runs.
type NotStoppedError struct {
	ID     string
	Status Status
}

func (e *NotStoppedError) Error() string { return fmt.Sprintf(textDeleteRunning, e.ID, e.Status) }
