// Command initramfs-build writes the initramfs that holds the agent. Run it at
// the root of the repository:
//
//	go run ./guest/cmd/initramfs-build -init bin/lucid-agent -out guest/out/initramfs.cpio
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lucid-containers/lucid/guest/initramfs"
)

func main() {
	agent := flag.String("init", "bin/lucid-agent", "static binary that becomes /init")
	out := flag.String("out", "guest/out/initramfs.cpio", "archive to write")
	flag.Parse()
	if err := build(*agent, *out); err != nil {
		fmt.Fprintln(os.Stderr, "initramfs-build:", err)
		os.Exit(1)
	}
}

// build replaces out atomically: a VM that starts meanwhile reads one or the
// other.
func build(agent, out string) error {
	binary, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(binary, []byte("\x7fELF")) {
		return fmt.Errorf("%s is not an ELF program", agent)
	}
	var archive bytes.Buffer
	if err := initramfs.Write(&archive, initramfs.Agent(binary)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(out+".tmp", archive.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(out+".tmp", out)
}
