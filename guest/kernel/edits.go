package kernel

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

//go:embed source.edits
var editFile string

// Edit replaces a part of a line of the kernel's source.
type Edit struct {
	File string // in the kernel's tree
	Old  string
	New  string // may have several lines
	Note string // why
}

// Edits returns the list built into this program.
func Edits() ([]Edit, error) { return parseEdits(editFile) }

// parseEdits reads paragraphs; source.edits describes them. A paragraph of
// notes only is a comment.
func parseEdits(text string) ([]Edit, error) {
	var edits []Edit
	for i, paragraph := range strings.Split(text, "\n\n") {
		var e Edit
		var notes, news []string
		for _, line := range strings.Split(strings.Trim(paragraph, "\n"), "\n") {
			mark, rest, _ := strings.Cut(line, " ")
			switch {
			case mark == "#" && e.File == "":
				notes = append(notes, rest)
			case mark == "=" && e.File == "" && filepath.IsLocal(rest):
				e.File = rest
			case mark == "-" && e.File != "" && e.Old == "" && rest != "":
				e.Old = rest
			case mark == "+" && e.Old != "":
				news = append(news, rest)
			default:
				return nil, fmt.Errorf("%w: source.edits: paragraph %d: unexpected %q", ErrFragment, i+1, line)
			}
		}
		e.Note, e.New = strings.Join(notes, " "), strings.Join(news, "\n")
		switch {
		case e.File == "":
		case e.Note == "" || news == nil || e.Old == e.New:
			return nil, fmt.Errorf("%w: source.edits: paragraph %d: want a reason, a file, what to replace and by what", ErrFragment, i+1)
		default:
			edits = append(edits, e)
		}
	}
	return edits, nil
}

// applyEdits changes the files below tree.
func applyEdits(tree string, edits []Edit) error {
	for _, e := range edits {
		path := filepath.Join(tree, e.File)
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("kernel: source.edits: %w", err)
		}
		if text, err = e.apply(text); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// apply returns the text of e.File after the edit.
func (e Edit) apply(text []byte) ([]byte, error) {
	if n := bytes.Count(text, []byte(e.Old)); n != 1 {
		return nil, fmt.Errorf("kernel: source.edits: %s has %q %d times, want once", e.File, e.Old, n)
	}
	return bytes.Replace(text, []byte(e.Old), []byte(e.New), 1), nil
}

// writeEdits writes what of the edits decides the kernel that comes out.
func writeEdits(w io.Writer, edits []Edit) {
	for _, e := range edits {
		fmt.Fprintf(w, "%q %q %q\n", e.File, e.Old, e.New)
	}
}
