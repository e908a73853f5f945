package kernel

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"strings"
)

//go:embed functions.skip
var skipFile string

// Skip is a function that the built kernel does not run.
type Skip struct {
	Name string
	Note string // what is lost, and why that is right
}

var skipLine = regexp.MustCompile(`^([a-z_][a-z0-9_]*)\s+#\s*(\S.*)$`)

// Skips returns the list built into this program.
func Skips() ([]Skip, error) { return parseSkips(skipFile) }

func parseSkips(text string) ([]Skip, error) {
	var skips []Skip
	seen := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := skipLine.FindStringSubmatch(line)
		if m == nil || seen[m[1]] {
			return nil, fmt.Errorf("%w: functions.skip:%d: want a function, once, and # why: %q", ErrFragment, i+1, line)
		}
		seen[m[1]] = true
		skips = append(skips, Skip{m[1], m[2]})
	}
	return skips, nil
}

// returnZero is what a skipped function becomes: xor %eax, %eax; ret.
var returnZero = []byte{0x31, 0xc0, 0xc3}

// skipFunctions overwrites the functions in an ELF file that still has its
// symbols. A name that is missing or ambiguous is an error: the list must not
// rot when the kernel changes.
func skipFunctions(path string, skips []Skip) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("kernel: %s: %w", path, err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return fmt.Errorf("kernel: %s: %w", path, err)
	}
	found := map[string]elf.Symbol{}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC {
			continue
		}
		if _, twice := found[s.Name]; twice {
			s.Size = 0 // refused below
		}
		found[s.Name] = s
	}
	for _, skip := range skips {
		s := found[skip.Name]
		if s.Size < uint64(len(returnZero)) || int(s.Section) >= len(f.Sections) {
			return fmt.Errorf("kernel: functions.skip: the kernel has no single function %s", skip.Name)
		}
		section := f.Sections[s.Section]
		at := section.Offset + s.Value - section.Addr
		if s.Value < section.Addr || at+uint64(len(returnZero)) > section.Offset+section.FileSize {
			return fmt.Errorf("kernel: functions.skip: %s is outside its section", skip.Name)
		}
		copy(data[at:], returnZero)
	}
	return os.WriteFile(path, data, 0o644)
}
