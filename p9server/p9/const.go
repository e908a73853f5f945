package p9

// Type is the message type, the fifth byte of every message. The names are
// those of enum p9_msg_t, 9P2000.L opcodes first.
type Type uint8

// Message types. An R-message is its T-message plus one.
const (
	TypeRlerror      Type = 7 // P9_RLERROR; P9_TLERROR is not used
	TypeTstatfs      Type = 8
	TypeTlopen       Type = 12
	TypeTlcreate     Type = 14
	TypeTsymlink     Type = 16
	TypeTmknod       Type = 18
	TypeTrename      Type = 20
	TypeTreadlink    Type = 22
	TypeTgetattr     Type = 24
	TypeTsetattr     Type = 26
	TypeTxattrwalk   Type = 30
	TypeTxattrcreate Type = 32
	TypeTreaddir     Type = 40
	TypeTfsync       Type = 50
	TypeTlock        Type = 52
	TypeTgetlock     Type = 54
	TypeTlink        Type = 70
	TypeTmkdir       Type = 72
	TypeTrenameat    Type = 74
	TypeTunlinkat    Type = 76
	TypeTversion     Type = 100
	TypeTauth        Type = 102
	TypeTattach      Type = 104
	TypeTflush       Type = 108
	TypeTwalk        Type = 110
	TypeTread        Type = 116
	TypeTwrite       Type = 118
	TypeTclunk       Type = 120
	TypeTremove      Type = 122
)

// Reply is the type of the message that answers t.
func (t Type) Reply() Type { return t + 1 }

// Sizes and special values of the protocol.
const (
	// HeaderSize is size[4] type[1] tag[2].
	HeaderSize = 7
	// RlerrorSize is the length of the error reply, the smallest room in
	// which every request can be answered.
	RlerrorSize = HeaderSize + 4
	// GetattrSize is the length of what Rgetattr has behind its header.
	GetattrSize = 8 + QIDSize + 3*4 + 15*8
	// WalkAttrSize is the length of an Rwalk of one name with the file's
	// attributes behind its QID: an extension of ours, for a client that offers
	// exactly this room (docs/flows/ninep.md, "Attributes with a walk").
	WalkAttrSize = HeaderSize + 2 + QIDSize + GetattrSize
	// ReadHeaderSize is what precedes the data of Rread and Rreaddir:
	// the header and count[4].
	ReadHeaderSize = HeaderSize + 4
	// WriteHeaderSize is what precedes the data of Twrite: the header,
	// fid[4], offset[8] and count[4].
	WriteHeaderSize = HeaderSize + 16
	// IOHeaderSize is P9_IOHDRSZ: the room that v9fs leaves for headers when
	// it derives its I/O unit from msize.
	IOHeaderSize = 24
	// MinMsize is the smallest msize that Linux's client accepts.
	MinMsize = 4096
	// MaxWalk is P9_MAXWELEM, the most names in one Twalk.
	MaxWalk = 16
	// MaxName is NAME_MAX: the longest name of one directory entry.
	MaxName = 255
	// QIDSize is type[1] version[4] path[8].
	QIDSize = 13
	// DirentHeaderSize is what precedes the name of an Rreaddir entry:
	// qid[13] offset[8] type[1] and the length of the name.
	DirentHeaderSize = QIDSize + 8 + 1 + 2

	// NoTag is P9_NOTAG, the tag of Tversion.
	NoTag = 0xffff
	// NoFID is P9_NOFID, "no fid".
	NoFID = 0xffffffff
	// NoUID is P9_NONUNAME, an attach that names no user.
	NoUID = 0xffffffff

	// Version is the only dialect spoken here.
	Version = "9P2000.L"
	// VersionUnknown answers a dialect that is not.
	VersionUnknown = "unknown"
)

// QID types (enum p9_qid_t).
const (
	QTDir     = 0x80
	QTSymlink = 0x02
	QTFile    = 0x00
)

// Open flags (P9_DOTL_*): octal, the same on every client architecture. On
// amd64 and arm64 they differ from the host's O_* in a few places only, but
// they are translated by name, never passed through.
const (
	OpenAccMode   = 0o3
	OpenRDONLY    = 0o0
	OpenWRONLY    = 0o1
	OpenRDWR      = 0o2
	OpenCREATE    = 0o100
	OpenEXCL      = 0o200
	OpenNOCTTY    = 0o400
	OpenTRUNC     = 0o1000
	OpenAPPEND    = 0o2000
	OpenNONBLOCK  = 0o4000
	OpenDSYNC     = 0o10000
	OpenFASYNC    = 0o20000
	OpenDIRECT    = 0o40000
	OpenLARGEFILE = 0o100000
	OpenDIRECTORY = 0o200000
	OpenNOFOLLOW  = 0o400000
	OpenNOATIME   = 0o1000000
	OpenCLOEXEC   = 0o2000000
	OpenSYNC      = 0o4000000
)

// AtRemoveDir is P9_DOTL_AT_REMOVEDIR, the one flag of Tunlinkat.
const AtRemoveDir = 0x200

// Bits of Tgetattr's request_mask and Rgetattr's valid (P9_STATS_*).
const (
	StatsBasic = 0x000007ff // mode, nlink, uid, gid, rdev, times, ino, size, blocks
	StatsBtime = 0x00000800
	StatsGen   = 0x00001000
)

// Bits of Tsetattr's valid (P9_ATTR_*).
const (
	AttrMode     = 1 << 0
	AttrUID      = 1 << 1
	AttrGID      = 1 << 2
	AttrSize     = 1 << 3
	AttrAtime    = 1 << 4
	AttrMtime    = 1 << 5
	AttrCtime    = 1 << 6
	AttrAtimeSet = 1 << 7
	AttrMtimeSet = 1 << 8
	// AttrAll is every bit that 9P2000.L defines.
	AttrAll = 1<<9 - 1
)

// Lock types (P9_LOCK_TYPE_*), answers (P9_LOCK_*) and flags
// (P9_LOCK_FLAGS_*).
const (
	LockTypeRDLCK = 0
	LockTypeWRLCK = 1
	LockTypeUNLCK = 2

	LockSuccess = 0
	LockBlocked = 1
	LockError   = 2
	LockGrace   = 3

	LockFlagsBlock   = 1
	LockFlagsReclaim = 2
)
