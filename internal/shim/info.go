package shim

import (
	"fmt"
	"io"
	"os/exec"

	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lucid-containers/lucid/internal/assets"
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
	lucid, err := assets.Program(lucidProgram)
	if err != nil {
		return err
	}
	f, err := exec.Command(lucid, "features").Output()
	if err != nil {
		return fmt.Errorf("lucid features: %w", err)
	}
	info.Features = &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/features/Features", Value: f}
	out, err := proto.Marshal(info)
	if err != nil {
		return err
	}
	_, err = stdout.Write(out)
	return err
}
