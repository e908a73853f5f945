package rootfs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// configFile is a bundle's.
const configFile = "config.json"

// ReadConfig has `lucid spec` write a bundle's config.json, as a user of runc would, and returns it for changes.
// lucid is the path of the program.
func ReadConfig(ctx context.Context, lucid, bundle string) (*specs.Spec, error) {
	if out, err := exec.CommandContext(ctx, lucid, "spec", "--bundle", bundle).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lucid spec: %w\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(bundle, configFile))
	if err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	return spec, json.Unmarshal(data, spec)
}

// WriteConfig writes a bundle's config.json.
func WriteConfig(bundle string, spec *specs.Spec) error {
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, configFile), data, 0o644)
}
