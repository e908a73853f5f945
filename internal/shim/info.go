package shim

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// runtimeName is what users write.
const runtimeName = "io.containerd.lucid.v2"

// printInfo answers -info: the options come on stdin, a RuntimeInfo goes out.
func printInfo(stdin io.Reader, stdout io.Writer, version string) error {
	data, err := io.ReadAll(io.LimitReader(stdin, maxStart))
	if err != nil {
		return fmt.Errorf("stdin: %w", err)
	}
	info := &types.RuntimeInfo{Name: runtimeName, Version: &types.RuntimeVersion{Version: version}}
	if len(data) > 0 {
		info.Options = &anypb.Any{}
		if err := proto.Unmarshal(data, info.Options); err != nil {
			return fmt.Errorf("stdin: no protobuf Any: %w", err)
		}
	}
	// Only what every lucid has; `lucid features` says the rest.
	f, err := json.Marshal(features.Features{OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version})
	if err != nil {
		return err
	}
	info.Features = &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/features/Features", Value: f}
	out, err := proto.Marshal(info)
	if err != nil {
		return err
	}
	_, err = stdout.Write(out)
	return err
}
