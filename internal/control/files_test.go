package control_test

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"github.com/lucid-containers/lucid/internal/control"
)

// filesHandler writes to each file that it gets.
type filesHandler struct{}

func (filesHandler) Control(_ context.Context, _ string, _ json.RawMessage, files []*os.File) (any, error) {
	for i, f := range files {
		if _, err := f.WriteString(strconv.Itoa(i)); err != nil {
			return nil, err
		}
	}
	return len(files), nil
}

// TestFiles: files come along in their order, and none stays open at the
// server.
func TestFiles(t *testing.T) {
	dir, _ := serve(t, filesHandler{})
	c, err := control.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, want := range []int{0, 1, 3, 0, control.MaxFiles + 2} {
		var files, ends []*os.File
		for range want {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			files, ends = append(files, w), append(ends, r)
		}
		var got int
		if err := c.CallFiles(t.Context(), "files", json.RawMessage(`"some parameters"`), &got, files...); err != nil {
			t.Fatal(err)
		}
		if got != min(want, control.MaxFiles) {
			t.Errorf("%d files came, want %d", got, want)
		}
		for i, f := range files {
			_ = f.Close()
			// The end of the pipe says that the server has closed its copy.
			buf := make([]byte, 8)
			n, _ := ends[i].Read(buf)
			text := strconv.Itoa(i)
			if i >= control.MaxFiles {
				text = ""
			}
			if string(buf[:n]) != text {
				t.Errorf("file %d got %q", i, buf[:n])
			}
			if n > 0 {
				if n, err := ends[i].Read(buf); n != 0 {
					t.Errorf("file %d: %d bytes more, %v", i, n, err)
				}
			}
		}
	}
}
