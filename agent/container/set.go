package container

import (
	"sync"

	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/internal/wire"
)

// Exports finds the host's file trees in the guest. boot.Share is one; tests
// use directories.
type Exports interface {
	// Path returns where the export is. It may mount the file server first.
	Path(name string) (string, error)
}

// Config is what all containers of a guest share.
type Config struct {
	Opener  wire.Opener
	Exports Exports
	Reaper  *reap.Reaper
	// CgroupParent is a cgroup v2 directory with the controllers enabled for
	// what is below it.
	CgroupParent string
	// WorkDir is a directory of the agent that no container sees. It has a
	// directory "root".
	WorkDir string
	// Pause gives the path of a program that only waits, the first process of
	// a pid namespace that containers share.
	Pause func() (path string, err error)
	// OnExit is called once for each process that ended, by a goroutine of
	// that process.
	OnExit func(*wire.ContainerExited)
	// OnOOM is called when the kernel has killed processes of a container because
	// memory ran out; before OnExit of the container's process if that is one of them.
	OnOOM func(*wire.ContainerOOM)
}

// Limits of a guest.
const (
	maxContainers = 256
	maxProcesses  = 4096 // of one container, made by Exec and not ended
	maxIDLength   = 1024
)

// Errors with runc's words.
var (
	errNotExist   = &wire.Error{Kind: wire.KindNotFound, Message: "container does not exist"}
	errExists     = &wire.Error{Kind: wire.KindExists, Message: "container with given ID already exists"}
	errNotRunning = &wire.Error{Kind: wire.KindState, Message: "container not running"}
	errStarted    = &wire.Error{Kind: wire.KindState, Message: "cannot start an already running container"}
	errStopped    = &wire.Error{Kind: wire.KindState, Message: "cannot start a container that has stopped"}
	errExecDead   = &wire.Error{Kind: wire.KindState, Message: "cannot exec in a stopped container"}
	errNoProcess  = &wire.Error{Kind: wire.KindNotFound, Message: "process does not exist"}
	errExecExists = &wire.Error{Kind: wire.KindExists, Message: "process with given ID already exists"}
	errTooMany    = &wire.Error{Kind: wire.KindFailed, Message: "too many containers or processes"}
)

// Set is the containers of a guest.
type Set struct {
	cfg Config

	mu         sync.Mutex
	containers map[string]*Container // protected by mu; nil while one is made
	spare      *cgroup               // protected by mu; see Prepare
	mounts     []spareMount          // as spare

	oom oomWatch

	podMu sync.Mutex
	podNS *spawn.Child // first process of the pod's pid namespace; protected by podMu; nil until it is asked for
}

// NewSet returns an empty Set.
func NewSet(cfg Config) *Set {
	return &Set{cfg: cfg, containers: make(map[string]*Container)}
}

// get returns a container that is complete.
func (s *Set) get(id string) (*Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, errNotExist
	}
	return c, nil
}

// reserve takes an id for a container that is being made.
func (s *Set) reserve(id string) error {
	if id == "" || len(id) > maxIDLength || hasNUL(id) {
		return invalidError("bad container id")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.containers[id]; taken {
		return errExists
	}
	if len(s.containers) >= maxContainers {
		return errTooMany
	}
	s.containers[id] = nil
	return nil
}

// put stores what an id stands for; nil frees it.
func (s *Set) put(id string, c *Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil {
		delete(s.containers, id)
	} else {
		s.containers[id] = c
	}
}

// Len counts the containers, those that are being made included.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers)
}
