package shim

import (
	"encoding/json"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// dialect is how the caller of `start` reads the answer.
type dialect int

const (
	// plain is the address alone: containerd 1.6, and understood by all.
	plain dialect = iota
	// jsonV2 is containerd 1.7 to 2.2, and cri-o.
	jsonV2
	// protobuf is containerd 2.3 and later.
	protobuf
)

// Versions of the protocol. 3 says that there is a sandbox service, and that containers of a sandbox need no `start`. Containerd
// 1.7 refuses it, and says no less of itself on the way here than 2.2 does: so it is for those alone that speak protobuf.
const (
	taskVersion    = 2
	sandboxVersion = 3
)

// maxStart bounds what start reads, in bytes: upstream's own limit.
const maxStart = 10 << 20

// recognise tells who calls from what is on stdin. containerd up to 2.2 puts the runtime's
// options there, a protobuf Any, or nothing. From 2.3 on it is a BootstrapParams. The one
// can be read as the other, so upstream's rule counts: it has to name the same container as
// the command line. What it says beyond that is taken over.
func (c *call) recognise(stdin []byte) dialect {
	var p bootstrap.BootstrapParams
	if len(stdin) > 0 && proto.Unmarshal(stdin, &p) == nil && p.InstanceID == c.id && p.Namespace == c.namespace {
		if c.ttrpc == "" {
			c.ttrpc = p.ContainerdTtrpcAddress
		}
		if c.address == "" {
			c.address = p.ContainerdGrpcAddress
		}
		c.socketDir = p.GetSocketDir()
		c.debug = c.debug || p.LogLevel < 0 // slog's numbers: DEBUG is -4
		for _, e := range p.Extensions {
			c.takeOptions(e.GetValue())
		}
		return protobuf
	}
	var a anypb.Any
	if proto.Unmarshal(stdin, &a) == nil {
		c.takeOptions(&a)
	}
	if c.maxVersion >= taskVersion {
		return jsonV2
	}
	return plain
}

// takeOptions reads what has an effect of runc's options, which clients send for any runtime.
func (c *call) takeOptions(a *anypb.Any) {
	var o options.Options
	if a.GetTypeUrl() == string(o.ProtoReflect().Descriptor().FullName()) && proto.Unmarshal(a.GetValue(), &o) == nil {
		c.shimCgroup = o.ShimCgroup
	}
}

// answer says where the shim listens.
func (d dialect) answer(address string) ([]byte, error) {
	switch d {
	case protobuf:
		return proto.Marshal(&bootstrap.BootstrapResult{Version: sandboxVersion, Address: address, Protocol: "ttrpc"})
	case jsonV2:
		return json.Marshal(struct {
			Version  int    `json:"version"`
			Address  string `json:"address"`
			Protocol string `json:"protocol"`
		}{taskVersion, address, "ttrpc"})
	default:
		return []byte(address), nil
	}
}
