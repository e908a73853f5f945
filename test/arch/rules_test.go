package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	maxFileLines = 400
	maxFuncLines = 80
)

// sources calls f with each Go file of the module that is not a test.
func sources(t *testing.T, f func(path string, src []byte)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "out" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f(strings.TrimPrefix(path, root+string(filepath.Separator)), src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSizes: a file tells one story (docs/architecture.md, house rules).
func TestSizes(t *testing.T) {
	sources(t, func(path string, src []byte) {
		if n := bytes.Count(src, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, at most %d", path, n, maxFileLines)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, src, 0)
		if err != nil {
			t.Error(err)
			return
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; n > maxFuncLines {
				t.Errorf("%s: func %s has %d lines, at most %d", path, fn.Name.Name, n, maxFuncLines)
			}
		}
	})
}

// TestUnsafe: unsafe stands in *_unsafe.go only, and says why it is safe.
func TestUnsafe(t *testing.T) {
	sources(t, func(path string, src []byte) {
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		for _, imp := range file.Imports {
			if imp.Path.Value != `"unsafe"` {
				continue
			}
			if !strings.HasSuffix(path, "_unsafe.go") {
				t.Errorf("%s imports unsafe: move that part to a file *_unsafe.go", path)
			} else if !bytes.Contains(src, []byte("SAFETY")) {
				t.Errorf("%s has no SAFETY sentence", path)
			}
		}
	})
}
