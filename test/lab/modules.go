package main

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleTree finds kernel modules and what they need. It reads the modules
// themselves (.modinfo), because a kernel package has no modules.dep: depmod
// makes that at installation.
type moduleTree struct {
	files map[string]string          // name with '_' → path; "" for what the kernel has built in
	deps  func(string) (deps, error) // of a path; a field for tests
}

// deps is what one module's .modinfo asks for.
type deps struct {
	Need []string // "depends": without these symbols are missing
	Pre  []string // "softdep pre:", if there
}

// openModuleTree indexes dir (…/lib/modules/RELEASE).
func openModuleTree(dir string) (*moduleTree, error) {
	t := &moduleTree{files: make(map[string]string), deps: readDeps}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(builtin)) {
		t.files[moduleName(strings.TrimSpace(line))] = ""
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".ko") {
			t.files[moduleName(path)] = path
		}
		return err
	})
	return t, err
}

// moduleName is what the kernel calls the module in that file.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// resolve returns the paths of names and all they need, each once, every
// module after those it needs, without what is built in. What the tree lacks is an error
// unless it is a soft dependency.
func (t *moduleTree) resolve(names []string) ([]string, error) {
	var order []string
	const visiting, done = 1, 2
	state := make(map[string]int)
	var visit func(name string, soft bool) error
	visit = func(name string, soft bool) error {
		name = strings.ReplaceAll(name, "-", "_")
		switch state[name] {
		case done:
			return nil
		case visiting:
			if soft {
				return nil // soft dependencies may be circular
			}
			return fmt.Errorf("module %s needs itself", name)
		}
		path, ok := t.files[name]
		if ok && path == "" || !ok && soft {
			return nil
		}
		if !ok {
			return fmt.Errorf("no module %s in the kernel package", name)
		}
		state[name] = visiting
		d, err := t.deps(path)
		if err != nil {
			return err
		}
		for _, n := range d.Pre {
			if err := visit(n, true); err != nil {
				return err
			}
		}
		for _, n := range d.Need {
			if err := visit(n, false); err != nil {
				return fmt.Errorf("%w (for %s)", err, name)
			}
		}
		state[name] = done
		order = append(order, path)
		return nil
	}
	for _, n := range names {
		if err := visit(n, false); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// without returns the paths of a that b does not have.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(p string) bool { return slices.Contains(b, p) })
}

func readDeps(path string) (deps, error) {
	f, err := elf.Open(path)
	if err != nil {
		return deps{}, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return deps{}, fmt.Errorf("%s: no .modinfo", path)
	}
	b, err := s.Data()
	if err != nil {
		return deps{}, fmt.Errorf("%s: %w", path, err)
	}
	return parseModinfo(b), nil
}

// parseModinfo takes the NUL-separated key=value strings apart.
func parseModinfo(b []byte) deps {
	var d deps
	for kv := range strings.SplitSeq(string(b), "\x00") {
		key, value, _ := strings.Cut(kv, "=")
		switch key {
		case "depends":
			for n := range strings.SplitSeq(value, ",") {
				if n != "" {
					d.Need = append(d.Need, n)
				}
			}
		case "softdep":
			pre := false
			for _, w := range strings.Fields(value) {
				if strings.HasSuffix(w, ":") {
					pre = w == "pre:"
				} else if pre {
					d.Pre = append(d.Pre, w)
				}
			}
		}
	}
	return d
}
