package wire

// Version is the version of the messages below. Host and agent are built from
// one tree and must agree exactly.
const Version = 6

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
	Version int
	Kernel  string // release, as uname -r
	// UptimeNS is CLOCK_BOOTTIME when Hello was written: nanoseconds since
	// the guest kernel began to keep time.
	UptimeNS int64
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
	MemoryBlock uint64
	// VCPUs is how many the guest knows of, itself running or not.
	VCPUs int
}

// Grow is what a clone has more than the guest that was saved.
type Grow struct {
	// Memory are ranges of multiples of Prepared.MemoryBlock.
	Memory []MemoryRange
	// VCPUs is how many are to run, counting those that do.
	VCPUs int
	// Limit is what all containers together may take, in bytes, where Memory had
	// to be rounded up; 0: what there is.
	Limit uint64
}

// MemoryRange is a piece of guest-physical memory in bytes.
type MemoryRange struct {
	Addr uint64
	Size uint64
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
	Hostname string
	// TimeNS is the wall clock in nanoseconds since the epoch; 0 leaves the
	// guest's clock alone.
	TimeNS int64
	// Entropy seeds the guest's random generator. At most 512 bytes are used.
	Entropy []byte
	// Share says how the file server is mounted, on first use.
	Share Share
	// Sysctl are files below /proc/sys, in the guest's own namespaces, which the
	// containers of a pod share.
	Sysctl map[string]string
}

// Share is how the agent mounts the 9P file server.
type Share struct {
	Tag   string // mount tag; empty: ShareTag
	Cache string // v9fs cache=; empty: mmap
	MSize int    // v9fs msize=; 0: 512000
	// Options are further mount options, comma separated, such as posixacl.
	Options string
}

// IO names the streams of a process. 0 is no stream: stdin reads EOF, and
// output goes to /dev/null. With a terminal Stdin and Stdout carry it and
// Stderr is 0.
type IO struct {
	Stdin  uint64
	Stdout uint64
	Stderr uint64
}

// CreateContainer makes a container up to the point where its process can be
// started: everything that can fail early fails here.
type CreateContainer struct {
	ID   string
	Spec Spec
	// State is what the hooks read on standard input: a specs.State in JSON
	// without a pid, which the agent sets. Without hooks there is none.
	State []byte
	// Rootfs is the name of the export that is the root file system.
	Rootfs string
	// MountExports has, for mounts of the spec that come from the host, the
	// name of the export by the mount's index in spec.mounts. Other mounts are
	// made inside the guest from their type (proc, sysfs, tmpfs, devpts,
	// mqueue, cgroup) or, for type bind, from a path inside the rootfs.
	MountExports map[int]string
	IO           IO
	// Seccomp is linux.seccomp, compiled by the host: of spec the agent does
	// not read it. It is for each process of the container, execs too.
	Seccomp *Seccomp
}

// Seccomp is a filter as seccomp(2) takes it.
type Seccomp struct {
	// Filter is an array of struct sock_filter, in the guest's byte order.
	Filter []byte
	// Flags are SECCOMP_FILTER_FLAG_….
	Flags uint32
}

// Created is the result of CreateContainer and of Exec.
type Created struct {
	Pid int // in the guest
	// Warnings name parts of the spec that have no effect in this guest.
	Warnings []string
}

// StartContainer runs the process of a created container.
type StartContainer struct {
	ID string
}

// Exec runs one more process in a running container.
type Exec struct {
	ID      string
	ExecID  string
	Process Process
	IO      IO
}

// Signal sends a signal to a process: the container's when ExecID is empty.
type Signal struct {
	ID     string
	ExecID string
	Signal int
	// All sends it to each process of the container instead.
	All bool
}

// ResizeTTY sets the window size of a process's terminal.
type ResizeTTY struct {
	ID     string
	ExecID string
	Width  uint16
	Height uint16
}

// CloseStdin closes a process's standard input, as the end of its stdin stream
// does. A terminal hangs up.
type CloseStdin struct {
	ID     string
	ExecID string
}

// Freeze stops the processes of a container, or lets them go on. SIGKILL ends a
// frozen one too.
type Freeze struct {
	ID     string
	Frozen bool
}

// Stats asks for the counters of a container's cgroup; with no ID, of all
// containers together.
type Stats struct {
	ID string
}

// StatsResult is what the container's cgroup v2 says. A file that the guest's
// kernel does not have leaves its field 0.
type StatsResult struct {
	CPUUsageUS     uint64
	CPUUserUS      uint64
	CPUSystemUS    uint64
	CPUPeriods     uint64
	CPUThrottled   uint64
	CPUThrottledUS uint64
	MemoryCurrent  uint64
	MemoryPeak     uint64
	MemoryMax      uint64 // 0: no limit
	MemoryFile     uint64 // page cache
	MemoryInactive uint64
	MemoryOOMKills uint64
	PidsCurrent    uint64
	PidsMax        uint64 // 0: no limit
}

// Pids asks for the processes of a container.
type Pids struct {
	ID string
}

// PidsResult lists processes by their number in the guest.
type PidsResult struct {
	Pids []int
}

// Update changes the resource limits of a container.
type Update struct {
	ID        string
	Resources Resources
}

// DeleteContainer kills what is left of a container and frees what it used. Its
// files are written back to the host by the time of the answer.
type DeleteContainer struct {
	ID string
}

// ContainerExited says that a process ended. It comes once per process that
// was created, after the reply to its CreateContainer or Exec.
type ContainerExited struct {
	ID     string
	ExecID string // empty: the container's process
	Status int    // exit code, or 128 + signal
	// Stdout and Stderr count the bytes that belong to the process's output
	// streams so far: what the process wrote before it ended. The host
	// passes that many on before it reports the exit; a stream may go on if
	// another process holds it open.
	Stdout uint64
	Stderr uint64
}

// ContainerOOM says that the kernel has killed processes of a container because memory ran out: the container's
// or all of the guest's. It comes before the ContainerExited of a process that ended by it.
type ContainerOOM struct {
	ID string
	// Kills counts them since the container was created.
	Kills uint64
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
	Kind    string
	Message string
}

func (e *Error) Error() string { return e.Message }
