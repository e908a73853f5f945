package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ConfigFile is the name of the specification file within a bundle.
const ConfigFile = "config.json"

// maxConfig bounds config.json, in bytes. Kubernetes writes some 20 KiB.
const maxConfig = 8 << 20

// Load reads and validates BUNDLE/config.json.
func Load(bundle string) (*specs.Spec, error) { return LoadFile(bundle, ConfigFile) }

// LoadFile is Load with another file than config.json. A relative name is
// looked up in the bundle.
func LoadFile(bundle, name string) (*specs.Spec, error) {
	info, err := os.Stat(bundle)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("bundle: %s is not a directory", bundle)
	}
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(bundle, name)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path) // an open could wait for ever
	}
	data, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	spec, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	err = Validate(spec)
	var field *FieldError
	if errors.As(err, &field) {
		field.File = name
	}
	return spec, err
}

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && filepath.Base(path) == ConfigFile {
		// runc's words.
		return nil, fmt.Errorf("JSON specification file %s not found", ConfigFile)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s: larger than %d MiB", path, maxConfig>>20)
	}
	return data, nil
}

// Parse decodes the text of a config.json. Its errors say the line.
func Parse(data []byte) (*specs.Spec, error) { return parse(ConfigFile, data) }

func parse(name string, data []byte) (*specs.Spec, error) {
	var spec *specs.Spec
	err := json.Unmarshal(data, &spec)
	if err == nil && spec == nil {
		return nil, fmt.Errorf("%s: config cannot be null", name)
	}
	if err == nil {
		return spec, nil
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("%s: line %d: %w", name, line(data, syntax.Offset), err)
	case errors.As(err, &kind) && kind.Field == "":
		return nil, fmt.Errorf("%s: line %d: a JSON %s does not fit here", name, line(data, kind.Offset), kind.Value)
	case errors.As(err, &kind):
		return nil, fmt.Errorf("%s: line %d: %s: a JSON %s does not fit here",
			name, line(data, kind.Offset), withoutIndices(kind.Field), kind.Value)
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// withoutIndices is the path of a field without those of lists, which Go 1.27's
// encoding/json has in it and that of Go 1.26 has not.
func withoutIndices(path string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(path, "."), func(name string) bool {
		_, err := strconv.ParseUint(name, 10, 64)
		return err == nil
	}), ".")
}

// line is the 1-based line of an offset.
func line(data []byte, offset int64) int {
	offset = min(max(offset, 0), int64(len(data)))
	return 1 + bytes.Count(data[:offset], []byte{'\n'})
}

// LoadProcess reads and validates a process for exec.
func LoadProcess(path string) (*specs.Process, error) {
	data, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	var p *specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p == nil {
		return nil, fmt.Errorf("%s: process cannot be null", path)
	}
	err = ValidateProcess(p)
	var field *FieldError
	if errors.As(err, &field) {
		field.File = path
	}
	return p, err
}
