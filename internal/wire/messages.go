package wire

import "encoding/json"

// Version is the version of the messages below. Host and agent are built from
// one tree and must agree exactly.
const Version = 5

// Where the host listens. The guest reaches the host as CID 2.
const (
	ControlPort = 1024 // vsock port of the control channel
	StreamPort  = 1025 // vsock port of the streams

	ControlPortName = "lucid.control" // virtio-serial port of the control channel
	StreamPortName  = "lucid.streams" // virtio-serial port of the streams
)

// ShareTag is the virtio-9p mount tag of the file server. Linux lets one mount
// use a tag at a time (net/9p/trans_virtio.c, chan->inuse), so the agent
// mounts the server's synthetic root (aname "") once and binds each export,
// which it finds there as a name of the top directory, where it is wanted.
const ShareTag = "lucid"

// Methods of requests, each with the type of its parameters and, after the
// arrow, of its result.
const (
	MethodConfigure       = "Configure"       // Configure → nothing
	MethodPrepare         = "Prepare"         // nothing → Prepared; see below
	MethodGrow            = "Grow"            // Grow → nothing; the guest has what it is told of when it returns
	MethodCreateContainer = "CreateContainer" // CreateContainer → Created
	MethodStartContainer  = "StartContainer"  // StartContainer → nothing
	MethodExec            = "Exec"            // Exec → Created; the process runs when it returns
	MethodSignal          = "Signal"          // Signal → nothing
	MethodResizeTTY       = "ResizeTTY"       // ResizeTTY → nothing
	MethodCloseStdin      = "CloseStdin"      // CloseStdin → nothing
	MethodFreeze          = "Freeze"          // Freeze → nothing; it has when it returns
	MethodStats           = "Stats"           // Stats → StatsResult
	MethodPids            = "Pids"            // Pids → PidsResult
	MethodUpdate          = "Update"          // Update → nothing
	MethodDeleteContainer = "DeleteContainer" // DeleteContainer → nothing
	MethodShutdown        = "Shutdown"        // nothing → nothing; files are written back by then, and the guest ends
)

// Methods of events, which the agent sends with id 0.
const (
	EventHello           = "Hello"           // Hello, the first frame
	EventContainerExited = "ContainerExited" // ContainerExited
	EventContainerOOM    = "ContainerOOM"    // ContainerOOM
)

// Hello is the first frame on the control channel.
type Hello struct {
	Version int    `json:"version"`
	Kernel  string `json:"kernel,omitempty"` // release, as uname -r
	// UptimeNS is CLOCK_BOOTTIME when Hello was written: nanoseconds since
	// the guest kernel began to keep time.
	UptimeNS int64 `json:"uptimeNS,omitempty"`
}

// Prepare asks a guest that has no container to get ready to be saved as a
// template. The agent has done what it can do once for all clones, and holds no
// garbage, when it answers. The host then closes the control channel, and the
// agent dials it again: a REQUEST that the host leaves unanswered is the guest
// at rest, with no timer that would fire. Whoever answers it, in this life or
// in that of a clone, gets a Hello and sends Configure, as after a boot.
//
// The kernel makes its boot_id when it is first read (drivers/char/random.c,
// proc_do_uuid), and nothing in a guest reads it before there is a container:
// each clone makes its own, from the entropy that Configure brings.

// Prepared is the result of Prepare: by what a clone can be larger than the guest
// that is saved.
type Prepared struct {
	// MemoryBlock is in what multiples and at what multiples of bytes memory can
	// be added; 0: it cannot.
	MemoryBlock uint64 `json:"memoryBlock,omitempty"`
	// VCPUs is how many the guest knows of, itself running or not.
	VCPUs int `json:"vcpus,omitempty"`
}

// Grow is what a clone has more than the guest that was saved.
type Grow struct {
	// Memory are ranges of multiples of Prepared.MemoryBlock.
	Memory []MemoryRange `json:"memory,omitempty"`
	// VCPUs is how many are to run, counting those that do.
	VCPUs int `json:"vcpus,omitempty"`
	// Limit is what all containers together may take, in bytes, where Memory had
	// to be rounded up; 0: what there is.
	Limit uint64 `json:"limit,omitempty"`
}

// MemoryRange is a piece of guest-physical memory in bytes.
type MemoryRange struct {
	Addr uint64 `json:"addr"`
	Size uint64 `json:"size"`
}

// RehearsalRootfs is an export that the agent has itself, without the host: a
// root file system with the one program RehearsalProgram, which writes a byte to
// its standard output and ends. Whoever makes a template has a container of it
// created, run and deleted first. The agent's code is in memory and mapped then,
// its tables are built and the kernel's caches filled, once for all clones.
const (
	RehearsalRootfs  = ".rehearsal"
	RehearsalProgram = "/rehearse"
)

// SharedMemory is an export that the agent has itself: a tmpfs that the containers
// of a pod share as their /dev/shm. Shared memory is memory of the guest: two
// mounts of the host's files have no page in common.
const SharedMemory = ".shm"

// Paths of namespaces in a guest's spec. Without a path a container gets a new
// one, and without the entry it is in the guest's own.
const (
	// PodNamespace is what the containers of a pod share: of types uts, ipc and
	// network the guest's own, of type pid one whose first process only waits.
	PodNamespace = "/pod"
	// ContainerNamespace is followed by the id of a container that has not ended.
	ContainerNamespace = "/container/"
)

// Configure gives the guest what must not be in a template: a name, the time
// and randomness. It comes before the first CreateContainer; to a clone it is
// what makes it another guest than its siblings.
type Configure struct {
	Hostname string `json:"hostname,omitempty"`
	// TimeNS is the wall clock in nanoseconds since the epoch; 0 leaves the
	// guest's clock alone.
	TimeNS int64 `json:"timeNS,omitempty"`
	// Entropy seeds the guest's random generator. At most 512 bytes are used.
	Entropy []byte `json:"entropy,omitempty"`
	// Share says how the file server is mounted, on first use.
	Share Share `json:"share"`
	// Sysctl are files below /proc/sys, in the guest's own namespaces, which the
	// containers of a pod share.
	Sysctl map[string]string `json:"sysctl,omitempty"`
}

// Share is how the agent mounts the 9P file server.
type Share struct {
	Tag   string `json:"tag,omitempty"`   // mount tag; empty: ShareTag
	Cache string `json:"cache,omitempty"` // v9fs cache=; empty: mmap
	MSize int    `json:"msize,omitempty"` // v9fs msize=; 0: 512000
	// Options are further mount options, comma separated, such as posixacl.
	Options string `json:"options,omitempty"`
}

// IO names the streams of a process. 0 is no stream: stdin reads EOF, and
// output goes to /dev/null. With a terminal Stdin and Stdout carry it and
// Stderr is 0.
type IO struct {
	Stdin  uint64 `json:"stdin,omitempty"`
	Stdout uint64 `json:"stdout,omitempty"`
	Stderr uint64 `json:"stderr,omitempty"`
}

// CreateContainer makes a container up to the point where its process can be
// started: everything that can fail early fails here.
type CreateContainer struct {
	ID string `json:"id"`
	// Spec is the guest's part of config.json: a specs.Spec in JSON of which
	// the agent reads process, root.readonly, hostname, domainname, mounts,
	// hooks.startContainer and linux. It ignores the rest, root.path among
	// them.
	Spec json.RawMessage `json:"spec"`
	// State is what the hooks read on standard input: a specs.State in JSON,
	// in which the agent sets the pid. Without hooks there is none.
	State json.RawMessage `json:"state,omitempty"`
	// Rootfs is the name of the export that is the root file system.
	Rootfs string `json:"rootfs"`
	// MountExports has, for mounts of the spec that come from the host, the
	// name of the export by the mount's index in spec.mounts. Other mounts are
	// made inside the guest from their type (proc, sysfs, tmpfs, devpts,
	// mqueue, cgroup) or, for type bind, from a path inside the rootfs.
	MountExports map[int]string `json:"mountExports,omitempty"`
	IO           IO             `json:"io"`
	// Seccomp is linux.seccomp, compiled by the host: of spec the agent does
	// not read it. It is for each process of the container, execs too.
	Seccomp *Seccomp `json:"seccomp,omitempty"`
}

// Seccomp is a filter as seccomp(2) takes it.
type Seccomp struct {
	// Filter is an array of struct sock_filter, in the guest's byte order.
	Filter []byte `json:"filter"`
	// Flags are SECCOMP_FILTER_FLAG_….
	Flags uint32 `json:"flags,omitempty"`
}

// Created is the result of CreateContainer and of Exec.
type Created struct {
	Pid int `json:"pid"` // in the guest
	// Warnings name parts of the spec that have no effect in this guest.
	Warnings []string `json:"warnings,omitempty"`
}

// StartContainer runs the process of a created container.
type StartContainer struct {
	ID string `json:"id"`
}

// Exec runs one more process in a running container.
type Exec struct {
	ID     string `json:"id"`
	ExecID string `json:"execID"`
	// Process is a specs.Process in JSON.
	Process json.RawMessage `json:"process"`
	IO      IO              `json:"io"`
}

// Signal sends a signal to a process: the container's when ExecID is empty.
type Signal struct {
	ID     string `json:"id"`
	ExecID string `json:"execID,omitempty"`
	Signal int    `json:"signal"`
	// All sends it to each process of the container instead.
	All bool `json:"all,omitempty"`
}

// ResizeTTY sets the window size of a process's terminal.
type ResizeTTY struct {
	ID     string `json:"id"`
	ExecID string `json:"execID,omitempty"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// CloseStdin closes a process's standard input, as the end of its stdin stream
// does. A terminal hangs up.
type CloseStdin struct {
	ID     string `json:"id"`
	ExecID string `json:"execID,omitempty"`
}

// Freeze stops the processes of a container, or lets them go on. SIGKILL ends a
// frozen one too.
type Freeze struct {
	ID     string `json:"id"`
	Frozen bool   `json:"frozen"`
}

// Stats asks for the counters of a container's cgroup; with no ID, of all
// containers together.
type Stats struct {
	ID string `json:"id,omitempty"`
}

// StatsResult is what the container's cgroup v2 says. A file that the guest's
// kernel does not have leaves its field 0.
type StatsResult struct {
	CPUUsageUS     uint64 `json:"cpuUsageUS"`
	CPUUserUS      uint64 `json:"cpuUserUS"`
	CPUSystemUS    uint64 `json:"cpuSystemUS"`
	CPUPeriods     uint64 `json:"cpuPeriods,omitempty"`
	CPUThrottled   uint64 `json:"cpuThrottled,omitempty"`
	CPUThrottledUS uint64 `json:"cpuThrottledUS,omitempty"`
	MemoryCurrent  uint64 `json:"memoryCurrent"`
	MemoryPeak     uint64 `json:"memoryPeak,omitempty"`
	MemoryMax      uint64 `json:"memoryMax,omitempty"`  // 0: no limit
	MemoryFile     uint64 `json:"memoryFile,omitempty"` // page cache
	MemoryInactive uint64 `json:"memoryInactive,omitempty"`
	MemoryOOMKills uint64 `json:"memoryOOMKills,omitempty"`
	PidsCurrent    uint64 `json:"pidsCurrent"`
	PidsMax        uint64 `json:"pidsMax,omitempty"` // 0: no limit
}

// Pids asks for the processes of a container.
type Pids struct {
	ID string `json:"id"`
}

// PidsResult lists processes by their number in the guest.
type PidsResult struct {
	Pids []int `json:"pids"`
}

// Update changes the resource limits of a container.
type Update struct {
	ID string `json:"id"`
	// Resources is a specs.LinuxResources in JSON.
	Resources json.RawMessage `json:"resources"`
}

// DeleteContainer kills what is left of a container and frees what it used. Its
// files are written back to the host by the time of the answer.
type DeleteContainer struct {
	ID string `json:"id"`
}

// ContainerExited says that a process ended. It comes once per process that
// was created, after the reply to its CreateContainer or Exec.
type ContainerExited struct {
	ID     string `json:"id"`
	ExecID string `json:"execID,omitempty"` // empty: the container's process
	Status int    `json:"status"`           // exit code, or 128 + signal
	// Stdout and Stderr count the bytes that belong to the process's output
	// streams so far: what the process wrote before it ended. The host
	// passes that many on before it reports the exit; a stream may go on if
	// another process holds it open.
	Stdout uint64 `json:"stdout,omitempty"`
	Stderr uint64 `json:"stderr,omitempty"`
}

// ContainerOOM says that the kernel has killed processes of a container because memory ran out: the container's
// or all of the guest's. It comes before the ContainerExited of a process that ended by it.
type ContainerOOM struct {
	ID string `json:"id"`
	// Kills counts them since the container was created.
	Kills uint64 `json:"kills"`
}

// Kinds of errors. The text of an error is for the user and has runc's words
// where callers look for them.
const (
	KindUnknownMethod = "unknown-method"
	KindInvalid       = "invalid"   // the request makes no sense
	KindNotFound      = "not-found" // no such container or process
	KindExists        = "exists"    // the id is taken
	KindState         = "state"     // not in this state of the container
	KindFailed        = "failed"    // anything else
)

// Error is a failure that the peer reports.
type Error struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }
