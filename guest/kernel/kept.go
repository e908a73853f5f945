package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// BuildIn compiles in a tree that is kept, for experiments: what an option or
// an edit does not touch is not compiled again. The cache is not used, for
// nobody vouches for what else has happened to such a tree.
func BuildIn(ctx context.Context, c Config, tree string) error {
	if err := c.defaults(); err != nil {
		return err
	}
	if err := checkTools(c.Source); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(tree, "Makefile")); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(tree, 0o755); err != nil {
			return err
		}
		if err := c.unpack(ctx, tree); err != nil {
			return err
		}
	}
	if err := editAgain(tree, c.Edits); err != nil {
		return err
	}
	// Linked anew in any case: the last build has patched functions in it.
	if err := os.Remove(filepath.Join(tree, "vmlinux")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.link(ctx, tree); err != nil {
		return err
	}
	entry := filepath.Join(tree, "lucid.out")
	if err := os.MkdirAll(entry, 0o755); err != nil {
		return err
	}
	for name, built := range results {
		data, err := os.ReadFile(filepath.Join(tree, built))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(entry, name), data, 0o644); err != nil {
			return err
		}
	}
	return install(entry, c.Out)
}

// pristine is the suffix of a source file as it was before the edits.
const pristine = ".lucid-orig"

// editAgain applies edits to a tree that may have been edited before. A file
// that comes out as it is keeps its time, so that make leaves it alone.
func editAgain(tree string, edits []Edit) error {
	byFile := map[string][]Edit{}
	for _, e := range edits {
		byFile[e.File] = append(byFile[e.File], e)
	}
	// Files edited by an earlier build only must go back too.
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == pristine {
			rel, err := filepath.Rel(tree, path[:len(path)-len(pristine)])
			if err != nil {
				return err
			}
			if _, edited := byFile[rel]; !edited {
				byFile[rel] = nil
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for file, edits := range byFile {
		path := filepath.Join(tree, file)
		now, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("kernel: source.edits: %w", err)
		}
		before, err := os.ReadFile(path + pristine)
		if errors.Is(err, fs.ErrNotExist) {
			before = now
			err = os.WriteFile(path+pristine, now, 0o644)
		}
		if err != nil {
			return err
		}
		after := before
		for _, e := range edits {
			if after, err = e.apply(after); err != nil {
				return err
			}
		}
		if bytes.Equal(after, now) {
			continue
		}
		if err := os.WriteFile(path, after, 0o644); err != nil {
			return err
		}
	}
	return nil
}
