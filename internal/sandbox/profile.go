package sandbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"

	"github.com/lucid-containers/lucid/vmm"
)

// profile is what `lucid --profile DIR` asks for: where the sandbox process spends its time, and why the VM leaves guest mode.
// A nil profile is none.
type profile struct {
	cpu, exits *os.File
}

// Suffixes of a container's files in the directory.
const (
	cpuSuffix   = ".cpu.pprof"
	exitsSuffix = ".exits.txt"
)

// startProfile opens both files at once, so that a directory that cannot be written fails the create.
func startProfile(dir, id string) (*profile, error) {
	if dir == "" {
		return nil, nil
	}
	var p profile
	var err error
	if p.cpu, err = os.Create(filepath.Join(dir, id+cpuSuffix)); err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	if p.exits, err = os.Create(filepath.Join(dir, id+exitsSuffix)); err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	if err := pprof.StartCPUProfile(p.cpu); err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	return &p, nil
}

// stop writes both files. A sandbox that is killed writes none: they stay empty.
func (p *profile) stop(stats vmm.Stats) error {
	if p == nil {
		return nil
	}
	pprof.StopCPUProfile()
	var text bytes.Buffer
	histogram(&text, "exits to user space, by reason", stats.Exits)
	histogram(&text, "instructions finished for KVM", stats.Assists)
	_, err := p.exits.Write(text.Bytes())
	return errors.Join(err, p.exits.Close(), p.cpu.Close())
}

// histogram writes counts, the largest first.
func histogram(w io.Writer, title string, counts map[string]uint64) {
	var sum, most uint64
	for _, n := range counts {
		sum += n
		most = max(most, n)
	}
	fmt.Fprintf(w, "%d %s\n", sum, title)
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	const width = 40 // of the longest bar
	for _, name := range names {
		n := counts[name]
		fmt.Fprintf(w, "%12d %5.1f %%  %-24s %s\n", n, 100*float64(n)/float64(sum), name, bytes.Repeat([]byte{'#'}, int(width*n/most)))
	}
}
