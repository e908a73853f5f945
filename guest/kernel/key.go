package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
)

// recipe is part of every cache key. Raise it when a change of this package
// changes the kernel that comes out for the same inputs.
const recipe = "1"

// Inputs is everything that decides what kernel comes out of a build.
type Inputs struct {
	Source    string // hex SHA-256 of the tarball
	Options   []Option
	Skips     []Skip
	Edits     []Edit
	Toolchain string // versions of compiler and linker
	Recipe    string
}

// Key names the result of a build in the cache. Notes and places of options do
// not count: rewording a reason must not rebuild the kernel.
func (in Inputs) Key() string {
	h := sha256.New()
	// Lengths keep neighbouring fields apart.
	var skips strings.Builder
	for _, s := range in.Skips {
		fmt.Fprintln(&skips, s.Name)
	}
	var edits strings.Builder
	writeEdits(&edits, in.Edits)
	for _, field := range []string{in.Recipe, in.Source, in.Toolchain, string(render(in.Options)), skips.String(), edits.String()} {
		fmt.Fprintf(h, "%d:%s\n", len(field), field)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
