package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// patience is for one program, which makes up to a dozen containers.
const patience = 3 * time.Minute

// runHere runs the programs of dir on this machine, one after another, and compares with the page.
func runHere(ctx context.Context, dir string, match *regexp.Regexp, runtimes []string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	table, err := expectations(string(text))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	// They unpack a root file system and look for their helper in the working directory.
	if err := os.Chdir(dir); err != nil {
		return err
	}
	var wrong []string
	ran := 0
	for _, e := range entries {
		name := e.Name()
		if name == inside || name == rootfs || !match.MatchString(name) {
			continue
		}
		for _, runtime := range runtimes {
			r := runOne(ctx, name, command(dir, runtime))
			ran++
			want, known := table[name]
			if runtime == "lucid" && (!known || want.Lucid != r.verdict) || runtime == "runc" && known && want.Runc != r.verdict {
				wrong = append(wrong, fmt.Sprintf("%s with %s: %s, and %s says %q", name, runtime, r.verdict, page, want.Of(runtime)))
				fmt.Println(r.details())
			}
			fmt.Printf("%-32s %-6s %-5s %3d ok %2d not %5.1f s\n", name, runtime, r.verdict, r.ok, r.notOK, r.took.Seconds())
		}
	}
	if ran == 0 {
		return fmt.Errorf("no program matches %s", match)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d results are not what is expected:\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
	return nil
}

// command is a runtime's path. lucid lies where a checkout has it, so that it finds its kernel.
func command(programs, runtime string) string {
	if runtime == "runc" {
		return runc
	}
	return filepath.Join(filepath.Dir(programs), "bin", runtime)
}

// runOne runs one program to its end, and takes away the containers that it leaves.
func runOne(ctx context.Context, name, runtime string) result {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "./"+name)
	cmd.Env = append(os.Environ(), "RUNTIME="+runtime)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second // containers that are left may hold the pipes
	begin := time.Now()
	err := cmd.Run()
	r := judge(out.String(), err == nil || err == exec.ErrWaitDelay)
	r.stdout, r.stderr, r.took = out.String(), errs.String(), time.Since(begin)
	ids, err := exec.Command(runtime, "list", "-q").Output()
	if err != nil {
		return r // runc has no directory before its first container
	}
	for _, id := range strings.Fields(string(ids)) {
		if err := exec.Command(runtime, "delete", "--force", id).Run(); err != nil {
			fmt.Fprintf(os.Stderr, "%s delete --force %s: %v\n", runtime, id, err)
		}
	}
	return r
}
