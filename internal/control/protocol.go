package control

import (
	"encoding/json"
	"time"
)

// Methods of the control socket.
const (
	MethodStatus = "status" // → Status
	MethodStart  = "start"  // release the process of a created container
	MethodKill   = "kill"   // KillParams
	MethodWait   = "wait"   // → Exit; answers when the container has exited
	MethodEnded  = "ended"  // answers when its process has ended; output and files may not be out yet
	MethodPause  = "pause"  // stop the vCPUs
	MethodResume = "resume" // let them go on
	MethodPids   = "pids"   // → Pids
	MethodStats  = "stats"  // → wire.StatsResult
	MethodUpdate = "update" // specs.LinuxResources
	MethodOOM    = "oom"    // OOM → OOM; answers when there are more OOM kills than the request says

	MethodJoin   = "join"   // Join and files: create one more container in a pod's VM; it ends with the connection
	MethodMember = "member" // Member: another method, for a container that has joined

	MethodExec     = "exec"      // Exec and files → ExecStarted; the process ends with the connection
	MethodExecWait = "exec-wait" // ExecStarted → Exit; answers when all output is in the files
	MethodResize   = "resize"    // Resize
)

// Kind classifies an Error, so that the caller can map it without reading text.
type Kind string

// The kinds.
const (
	KindInternal   Kind = "internal"
	KindBadRequest Kind = "bad-request"
	KindNotRunning Kind = "not-running" // the process has exited
	KindRunning    Kind = "running"     // start of a running container
	KindPaused     Kind = "paused"      // the VM is paused, or not although it should be
	KindTemplate   Kind = "template"    // Launch.Template is of no use; nothing of the guest has run
	KindGuest      Kind = "guest"       // the agent's answer, such as a program that is not found
)

// Error is a failure that travels in a Response or a Ready.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string { return e.Message }

// Request is one call.
type Request struct {
	Method string
	Params json.RawMessage `json:",omitempty"`
}

// Response answers a Request.
type Response struct {
	Error  *Error          `json:",omitempty"`
	Result json.RawMessage `json:",omitempty"`
}

// State is where a container stands, as the sandbox process knows it.
type State string

// The states, in order:
//
//	creating ──agent has built it──▶ created ──start──▶ running ──exit──▶ stopped
//	    └───────────────── the VM or the process is killed ───────────────▶
//
// A created or running one is paused while its vCPUs are stopped.
const (
	StateCreating State = "creating"
	StateCreated  State = "created"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateStopped  State = "stopped"
)

// Status is the answer to MethodStatus.
type Status struct {
	State State
	// Exit is set when State is StateStopped.
	Exit *Exit `json:",omitempty"`
}

// Exit is how a container ended. Code is what the sandbox process exits
// with: the process's status, or 128 plus the signal that ended it.
type Exit struct {
	Code int
	At   time.Time
}

// OOM counts the processes of a container that the guest's kernel has killed because memory ran out. The guest says so, and
// may say anything; it can only grow.
type OOM struct {
	Kills uint64
}

// KillParams names a signal by its Linux number. It goes to the container's
// process or, with ExecID, to that of an exec.
type KillParams struct {
	Signal int
	ExecID string `json:",omitempty"`
}

// Exec runs one more process in the container. The files of the request are
// its stdin, stdout and stderr, without those that are Null; pipes that are
// the sandbox's alone, so that it can give them up at any time.
type Exec struct {
	// Process is a specs.Process.
	Process json.RawMessage
	// Null says which of 0 to 2 are /dev/null. With a terminal 2 is.
	Null [3]bool
	// Pid is the stand-in, the process on the host.
	Pid int
	// Wait is for the end of a pause.
	Wait bool `json:",omitempty"`
}

// ExecStarted names the process.
type ExecStarted struct {
	ExecID string
}

// Join creates a container in the VM of a pod. The files of the request are as for
// Exec.
type Join struct {
	ID string
	// Plan is an oci.Plan.
	Plan json.RawMessage
	Null [3]bool
	// Pid is the stand-in, the process on the host.
	Pid int
}

// Member is a request for a container that has joined.
type Member struct {
	ID     string
	Method string
	Params json.RawMessage `json:",omitempty"`
}

// Resize sets the window size of a terminal: an exec's, or without an ExecID that
// of a container which has joined.
type Resize struct {
	ExecID        string
	Width, Height uint16
}

// Pids are the processes on the host: the sandbox process and the stand-ins
// of execs.
type Pids struct {
	Pids []int
}

// Launch is the configuration of a sandbox process.
type Launch struct {
	ID string
	// Plan is an oci.Plan. Or there is Packed, the same in the form of internal/wire, for a process of the
	// same program: the other types of a config.json take encoding/json longer than all else that it says.
	Plan   json.RawMessage `json:",omitempty"`
	Packed []byte          `json:",omitempty"`
	// Kernel and Initramfs are host paths.
	Kernel    string
	Initramfs string
	// Pod is the state directory of the sandbox whose VM the container joins:
	// the process stands for it and holds no VM. Empty: it makes one.
	Pod string `json:",omitempty"`
	// Template is a directory with a saved VM (internal/template) to go on
	// from instead of booting. A failure before the guest runs is an error
	// of KindTemplate: the creator may try again without.
	Template string `json:",omitempty"`
	// MakeTemplate is a directory to save a VM into, as the files memory and
	// state. There is no container then: of Plan only VM counts, and the
	// process exits with 0 when both are whole, else with one line on
	// standard error. It sends no Ready, and ends when its creator does.
	MakeTemplate string `json:",omitempty"`
	// Terminal says that fds 0 to 2 are one pty, in raw mode.
	Terminal bool
	// Debug asks for debug logging and the timeline.
	Debug bool
	// Profile is a directory of the host for a CPU profile of the sandbox
	// process and a histogram of the VM's exits. Empty: none.
	Profile string `json:",omitempty"`
	// LogJSON selects the format of the log.
	LogJSON bool
	// Spawned is when the creator started the process, in nanoseconds of
	// CLOCK_MONOTONIC, which all processes share: the zero of the timeline.
	Spawned int64
}

// Ready is the sandbox's first and only word on the launch socket.
type Ready struct {
	Error *Error `json:",omitempty"`
}

// Commit is the creator's answer to Ready: it has recorded the container.
type Commit struct {
	// Bound keeps the launch socket open: the sandbox process ends when its
	// creator does.
	Bound bool `json:",omitempty"`
}

// Inherited file descriptors of a sandbox process, besides the container's
// own 0 to 2.
const (
	LaunchFD   = 3 // launch socket
	StateDirFD = 4 // the state directory, O_DIRECTORY
	AliveFD    = 5 // STATEDIR/alive, locked for as long as the process lives
	LogFD      = 6 // where it logs
)

// Timeline is what happened in a VM, and how often it left guest mode.
type Timeline struct {
	// Marks are milliseconds since MarkSpawn, on the monotonic clock.
	Marks map[string]float64
	Exits map[string]uint64 `json:",omitempty"` // by reason
	// HelloExits are those of Exits that came before MarkAgentHello.
	HelloExits map[string]uint64 `json:",omitempty"`
	Assists    map[string]uint64 `json:",omitempty"` // by kind
}

// TimelineFile is where a sandbox process writes its Timeline, in the state
// directory.
const TimelineFile = "timeline.json"

// MarkNames are the marks in the order in which they happen.
var MarkNames = []string{
	MarkSpawn, MarkVMCreated, MarkKernelEntry, MarkRestored, MarkAgentHello, MarkCreated, MarkStarted, MarkExited,
}

// Names of marks.
const (
	MarkSpawn       = "spawn"
	MarkVMCreated   = "vm_created"
	MarkKernelEntry = "kernel_entry"
	MarkRestored    = "restored" // in place of kernel_entry: a VM from a template is about to run
	MarkAgentHello  = "agent_hello"
	MarkCreated     = "created"
	MarkStarted     = "started"
	MarkExited      = "exited"
)
