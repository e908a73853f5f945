package kernel

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

//go:embed *.fragment
var fragmentFiles embed.FS

// ErrFragment is wrapped by every complaint about a fragment.
var ErrFragment = errors.New("kernel fragment")

// Option is one line of a fragment.
type Option struct {
	Name  string // with the CONFIG_ prefix
	Value string // as in a .config: y, n, a number or a quoted string
	Note  string // why
	Where string // FILE:LINE, for messages
}

// optionLine is NAME=VALUE, spaces, "# " and a note. A quoted value may hold
// no '#', so the first one begins the note.
var optionLine = regexp.MustCompile(`^(CONFIG_[A-Z0-9_]+)=(y|n|-?[0-9]+|0x[0-9a-f]+|"[^"#]*")\s+#\s*(\S.*)$`)

// Fragments returns the merged options of the fragments built into this
// program, in the order of file names and lines.
func Fragments() ([]Option, error) {
	return Merge(fragmentFiles)
}

// Merge reads all *.fragment files at the root of fsys. An option that is set
// twice is an error even when both agree: a reader must find one place with
// one reason.
func Merge(fsys fs.FS) ([]Option, error) {
	names, err := fs.Glob(fsys, "*.fragment")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: no *.fragment file", ErrFragment)
	}
	var (
		all  []Option
		seen = map[string]string{}
		errs []error
	)
	for _, name := range names { // fs.Glob sorts
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		options, err := parse(name, string(text))
		errs = append(errs, err)
		for _, o := range options {
			if first, ok := seen[o.Name]; ok {
				errs = append(errs, fmt.Errorf("%w: %s: %s is already set at %s", ErrFragment, o.Where, o.Name, first))
				continue
			}
			seen[o.Name] = o.Where
			all = append(all, o)
		}
	}
	return all, errors.Join(errs...)
}

// parse reads one fragment and reports every bad line of it.
func parse(name, text string) ([]Option, error) {
	var (
		options []Option
		errs    []error
	)
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		where := fmt.Sprintf("%s:%d", name, i+1)
		m := optionLine.FindStringSubmatch(line)
		if m == nil {
			errs = append(errs, fmt.Errorf("%w: %s: want CONFIG_NAME=VALUE  # why, got %q", ErrFragment, where, line))
			continue
		}
		options = append(options, Option{Name: m[1], Value: m[2], Note: m[3], Where: where})
	}
	return options, errors.Join(errs...)
}

// render writes the options the way `make allnoconfig` reads them through
// KCONFIG_ALLCONFIG.
func render(options []Option) []byte {
	var b bytes.Buffer
	for _, o := range options {
		if o.Value == "n" {
			fmt.Fprintf(&b, "# %s is not set\n", o.Name)
			continue
		}
		fmt.Fprintf(&b, "%s=%s\n", o.Name, o.Value)
	}
	return b.Bytes()
}

// Verify compares a finished .config with what was asked for and returns one
// line per option that did not come out as requested. Kconfig drops a request
// silently when a dependency is missing and overrides it when something
// selects the option; both must stop the build. An option that no longer
// exists reads as off, so a request for "n" also passes for options that a
// newer kernel has removed.
func Verify(config []byte, options []Option) []string {
	got := map[string]string{}
	for line := range strings.Lines(string(config)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.HasPrefix(name, "CONFIG_") {
			got[name] = value
		}
	}
	var bad []string
	for _, o := range options {
		value, set := got[o.Name]
		switch {
		case o.Value == "n" && set && value != "n":
			bad = append(bad, fmt.Sprintf("%s: %s is %s although n is asked for: something selects it", o.Where, o.Name, value))
		case o.Value != "n" && !set:
			bad = append(bad, fmt.Sprintf("%s: %s=%s did not take effect: a dependency is missing, or the option is unknown", o.Where, o.Name, o.Value))
		case o.Value != "n" && value != o.Value:
			bad = append(bad, fmt.Sprintf("%s: %s is %s although %s is asked for", o.Where, o.Name, value, o.Value))
		}
	}
	return bad
}

// Override returns base with the options of more in place of those of the same
// name, and the rest of more behind them.
func Override(base, more []Option) []Option {
	byName := map[string]Option{}
	for _, o := range more {
		byName[o.Name] = o
	}
	out := make([]Option, 0, len(base)+len(more))
	for _, o := range base {
		if m, ok := byName[o.Name]; ok {
			o = m
			delete(byName, o.Name)
		}
		out = append(out, o)
	}
	for _, o := range more {
		if _, left := byName[o.Name]; left {
			out = append(out, o)
		}
	}
	return out
}
