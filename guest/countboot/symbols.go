package countboot

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// symbol is a function of the kernel.
type symbol struct {
	addr uint64
	name string
}

// symbols is sorted by address.
type symbols []symbol

// kernelBase is where addresses of the kernel begin; user code is below it.
const kernelBase = 1 << 63

// readSymbols reads the code symbols of a System.map. Several names of one
// address become the first one of the file.
func readSymbols(path string) (symbols, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var all symbols
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || !strings.Contains("tTwW", fields[1]) {
			continue
		}
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("countboot: %s: %w", path, err)
		}
		if addr < kernelBase {
			continue
		}
		all = append(all, symbol{addr, fields[2]})
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].addr < all[j].addr })
	all = slices.CompactFunc(all, func(a, b symbol) bool { return a.addr == b.addr })
	return all, lines.Err()
}

// find returns the index of the function that holds addr, or -1.
func (s symbols) find(addr uint64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].addr > addr }) - 1
}
