package wire

// The types below are the parts of config.json that the guest acts on, with
// the names of the OCI runtime-spec: the host reads them from JSON, of which they
// ignore the rest, and sends them as Marshal does.

// Spec is the guest's part of config.json.
type Spec struct {
	Process    *Process `json:"process"`
	Root       *Root    `json:"root"`
	Hostname   string   `json:"hostname"`
	Domainname string   `json:"domainname"`
	Mounts     []Mount  `json:"mounts"`
	Hooks      *Hooks   `json:"hooks"`
	Linux      *Linux   `json:"linux"`
}

// Hooks is hooks of the OCI spec; the other kinds run on the host.
type Hooks struct {
	StartContainer []Hook `json:"startContainer"`
}

// Hook is one of hooks of the OCI spec.
type Hook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	Timeout *int     `json:"timeout"` // seconds
}

// Root is root of the OCI spec; its path is the host's business.
type Root struct {
	Readonly bool `json:"readonly"`
}

// Process is process of the OCI spec.
type Process struct {
	Terminal        bool          `json:"terminal"`
	ConsoleSize     *Box          `json:"consoleSize"`
	User            User          `json:"user"`
	Args            []string      `json:"args"`
	Env             []string      `json:"env"`
	Cwd             string        `json:"cwd"`
	Capabilities    *Capabilities `json:"capabilities"`
	Rlimits         []Rlimit      `json:"rlimits"`
	NoNewPrivileges bool          `json:"noNewPrivileges"`
	OOMScoreAdj     *int          `json:"oomScoreAdj"`
	Scheduler       *Scheduler    `json:"scheduler"`
}

// Scheduler is process.scheduler of the OCI spec. Times are in nanoseconds.
type Scheduler struct {
	Policy   string   `json:"policy"`
	Nice     int32    `json:"nice"`
	Priority int32    `json:"priority"`
	Flags    []string `json:"flags"`
	Runtime  uint64   `json:"runtime"`
	Deadline uint64   `json:"deadline"`
	Period   uint64   `json:"period"`
}

// Box is the size of a terminal in characters.
type Box struct {
	Height int `json:"height"`
	Width  int `json:"width"`
}

// User is process.user of the OCI spec.
type User struct {
	UID            uint32   `json:"uid"`
	GID            uint32   `json:"gid"`
	Umask          *uint32  `json:"umask"`
	AdditionalGids []uint32 `json:"additionalGids"`
}

// Capabilities is process.capabilities of the OCI spec.
type Capabilities struct {
	Bounding    []string `json:"bounding"`
	Effective   []string `json:"effective"`
	Inheritable []string `json:"inheritable"`
	Permitted   []string `json:"permitted"`
	Ambient     []string `json:"ambient"`
}

// Rlimit is one of process.rlimits of the OCI spec.
type Rlimit struct {
	Type string `json:"type"`
	Hard uint64 `json:"hard"`
	Soft uint64 `json:"soft"`
}

// Mount is one of mounts of the OCI spec.
type Mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

// Linux is linux of the OCI spec.
type Linux struct {
	Sysctl            map[string]string `json:"sysctl"`
	Resources         *Resources        `json:"resources"`
	Namespaces        []Namespace       `json:"namespaces"`
	Devices           []Device          `json:"devices"`
	RootfsPropagation string            `json:"rootfsPropagation"`
	MaskedPaths       []string          `json:"maskedPaths"`
	ReadonlyPaths     []string          `json:"readonlyPaths"`
	Personality       *Personality      `json:"personality"`
	UIDMappings       []IDMapping       `json:"uidMappings"`
	GIDMappings       []IDMapping       `json:"gidMappings"`

	TimeOffsets map[string]TimeOffset `json:"timeOffsets"`
}

// Personality is linux.personality of the OCI spec, which knows no flags.
type Personality struct {
	Domain string `json:"domain"`
}

// IDMapping is one of linux.uidMappings and gidMappings of the OCI spec. The
// host is the guest, which sees the ids of the host's files.
type IDMapping struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
	Size        uint32 `json:"size"`
}

// TimeOffset is one of linux.timeOffsets of the OCI spec.
type TimeOffset struct {
	Secs     int64  `json:"secs"`
	Nanosecs uint32 `json:"nanosecs"`
}

// Namespace is one of linux.namespaces of the OCI spec.
type Namespace struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

// Device is one of linux.devices of the OCI spec.
type Device struct {
	Path     string  `json:"path"`
	Type     string  `json:"type"`
	Major    int64   `json:"major"`
	Minor    int64   `json:"minor"`
	FileMode *uint32 `json:"fileMode"`
	UID      *uint32 `json:"uid"`
	GID      *uint32 `json:"gid"`
}

// Resources is linux.resources of the OCI spec, as far as a cgroup of the
// guest can enforce it.
type Resources struct {
	Memory *struct {
		Limit       *int64 `json:"limit"`
		Reservation *int64 `json:"reservation"`
	} `json:"memory"`
	CPU *struct {
		Shares *uint64 `json:"shares"`
		Quota  *int64  `json:"quota"`
		Period *uint64 `json:"period"`
		Burst  *uint64 `json:"burst"`
		Idle   *int64  `json:"idle"`
	} `json:"cpu"`
	Pids *struct {
		Limit *int64 `json:"limit"`
	} `json:"pids"`
	// Unified are files of the cgroup with what is written into them.
	Unified map[string]string `json:"unified"`
}
