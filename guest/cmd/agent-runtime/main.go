// Command agent-runtime writes an overlay of Go's runtime for the agent: a few
// edits of the toolchain's own source, for `go build -overlay`. Run it at the
// root of the repository:
//
//	go run ./guest/cmd/agent-runtime -out guest/out/runtime
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit replaces a text that stands exactly once in a file of the toolchain, so
// that another version of Go fails the build instead of losing it.
type edit struct {
	file     string // below GOROOT/src
	old, new string
	why      string
}

var edits = []edit{{
	file: "runtime/proc.go",
	old:  "\t\tusleep(delay)\n\n\t\t// sysmon should not enter deep sleep",
	new:  "\t\tusleep(max(delay, 100*1000))\n\n\t\t// sysmon should not enter deep sleep",
	why: "The monitor thread looks every 20 µs to 10 ms as long as a goroutine runs, which is all the time while a container is made. " +
		"Each look is a timer interrupt, two system calls and two switches with XSAVE and XRSTOR: where the guest's kernel is interpreted, " +
		"some 10 ms of every 10. What it is for comes later now: a goroutine blocked in a system call keeps its P for up to 0.2 s " +
		"if others want it. The agent's descriptors wait in the poller, and asynchronous preemption is off.",
}}

func main() {
	out := flag.String("out", "guest/out/runtime", "directory to write overlay.json and the edited files to")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "agent-runtime:", err)
		os.Exit(1)
	}
}

func write(out string) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	out, err = filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i := range edits {
		e := &edits[i]
		path := filepath.Join(strings.TrimSpace(string(root)), "src", filepath.FromSlash(e.file))
		from := path
		if edited, ok := overlay.Replace[path]; ok {
			from = edited
		}
		source, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		text, err := e.apply(string(source))
		if err != nil {
			return err
		}
		to := filepath.Join(out, strings.ReplaceAll(e.file, "/", "_")+".edited") // no package of ours
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return err
		}
		overlay.Replace[path] = to
	}
	data, err := json.MarshalIndent(&overlay, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "overlay.json"), data, 0o644)
}

// apply returns the source with the edit made.
func (e *edit) apply(source string) (string, error) {
	if n := strings.Count(source, e.old); n != 1 {
		return "", fmt.Errorf("%s of this Go has the text of an edit %d times, not once: %q", e.file, n, e.old)
	}
	return strings.Replace(source, e.old, e.new, 1), nil
}
