package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// TestBadCommands: one clear line and runc's exit status.
func TestBadCommands(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"exec", `"exec" requires a minimum of 1 argument(s)`, 1},
		{"exec c1 true", "container does not exist", 255},
		{"exec a/b true", "invalid container ID format", 255},
		{"exec --nosuch c1 true", "flag provided but not defined: -nosuch", 1},
		{"exec --additional-gids x c1 true", "invalid value", 1},
		{"pause", `"pause" requires exactly 1 argument(s)`, 1},
		{"pause c1", "container does not exist", 1},
		{"resume a b", `"resume" requires exactly 1 argument(s)`, 1},
		{"resume c1", "container does not exist", 1},
		{"ps", `"ps" requires a minimum of 1 argument(s)`, 1},
		{"ps c1", "container does not exist", 1},
		{"ps -f xml c1", "invalid format option", 1},
		{"events", `"events" requires exactly 1 argument(s)`, 1},
		{"events c1", "container does not exist", 1},
		{"events --interval 0s c1", "duration interval must be greater than 0", 1},
		{"events --interval soon c1", "invalid value", 1},
		{"update", `"update" requires exactly 1 argument(s)`, 1},
		{"update c1", "container does not exist", 1},
		{"features x", `"features" requires exactly 0 argument(s)`, 1},
		{"checkpoint --image-path /x c1", "checkpoint is not supported yet", 1},
		{"restore --bundle /x c1", "restore is not supported yet", 1},
		{"exec-process", "for lucid's own use", 1},
	} {
		args := append([]string{"--root", root}, strings.Fields(c.args)...)
		if c.args == standInName {
			args = args[2:]
		}
		r := lucid(t, "/", args...)
		if r.code != c.code || !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 && !strings.HasPrefix(r.stderr, "Incorrect Usage") {
			t.Errorf("%s: status %d, stderr %q, want %d and one line with %q", c.args, r.code, r.stderr, c.code, c.want)
		}
	}
}

func TestFeatures(t *testing.T) {
	r := lucid(t, "/", "features")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": \"1.") {
		t.Fatalf("status %d, %s%s", r.code, r.stdout, r.stderr)
	}
	var f struct {
		Hooks        []string
		MountOptions []string
		Linux        struct {
			Namespaces, Capabilities []string
			Cgroup, Seccomp          map[string]any
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Hooks) != 6 || len(f.MountOptions) < 40 || len(f.Linux.Capabilities) < 40 || f.Linux.Capabilities[0] != "CAP_CHOWN" ||
		f.Linux.Cgroup["v2"] != true || f.Linux.Cgroup["systemd"] != true {
		t.Errorf("%+v", f)
	}
}

// parse runs a command line up to its action.
func parse(t *testing.T, command *cli.Command, action func(*cli.Command), args ...string) {
	t.Helper()
	a := &app{log: stderrLogger()}
	root := a.command()
	for _, c := range root.Commands {
		if c.Name == command.Name {
			c.Action = func(_ context.Context, cmd *cli.Command) error { action(cmd); return nil }
		}
	}
	if err := root.Run(t.Context(), append([]string{"lucid", command.Name}, args...)); err != nil {
		t.Fatal(err)
	}
}

// TestExecProcess: what the flags make of the container's process.
func TestExecProcess(t *testing.T) {
	dir := bundle(t)
	edit(t, dir, `"uid": 0`, `"uid": 3`)
	a := &app{}
	try := func(args ...string) (p *specs.Process, err error) {
		parse(t, a.execCommand(), func(cmd *cli.Command) { p, err = execProcess(cmd, dir, oci.ConfigFile) }, args...)
		return p, err
	}
	other := filepath.Join(t.TempDir(), "other.json")
	if data, err := os.ReadFile(filepath.Join(dir, oci.ConfigFile)); err != nil || os.WriteFile(other, bytes.ReplaceAll(data, []byte(`"uid": 3`), []byte(`"uid": 4`)), 0o644) != nil {
		t.Fatal(err)
	}
	parse(t, a.execCommand(), func(cmd *cli.Command) {
		if p, err := execProcess(cmd, dir, other); err != nil || p.User.UID != 4 {
			t.Errorf("create --config: %+v, %v", p, err)
		}
	}, "c1", "ls")
	p, err := try("-t", "--cwd", "/tmp", "-e", "A=1", "--env", "B=x,y", "-u", "7:8", "-g", "9", "--cap", "CAP_KILL", "--no-new-privs", "c1", "ls", "-l", "--env", "C=1")
	if err != nil {
		t.Fatal(err)
	}
	if !p.Terminal || p.Cwd != "/tmp" || p.User.UID != 7 || p.User.GID != 8 || p.User.AdditionalGids[len(p.User.AdditionalGids)-1] != 9 || !p.NoNewPrivileges {
		t.Errorf("%+v", p)
	}
	if strings.Join(p.Args, " ") != "ls -l --env C=1" || strings.Join(p.Env[len(p.Env)-2:], " ") != "A=1 B=x,y" {
		t.Errorf("args %q, env %q", p.Args, p.Env)
	}
	if b := p.Capabilities.Bounding; b[len(b)-1] != "CAP_KILL" {
		t.Errorf("bounding set %q", b)
	}
	if p, err = try("c1", "true"); err != nil || p.Terminal || p.User.UID != 3 || p.Cwd != "/" {
		t.Errorf("%+v, %v", p, err)
	}

	file := filepath.Join(dir, "process.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"args": ["x"], "cwd": "/y", "terminal": true}`)
	if p, err = try("--process", file, "c1"); err != nil || p.Args[0] != "x" || p.Cwd != "/y" || !p.Terminal {
		t.Errorf("%+v, %v", p, err)
	}
	for name, c := range map[string]struct {
		text, want string
		args       []string
	}{
		"no args":           {"", "process args cannot be empty", []string{"c1"}},
		"relative cwd":      {"", `process.cwd: "tmp" is not an absolute path`, []string{"--cwd", "tmp", "c1", "x"}},
		"user name":         {"", "parsing root as int for uid failed", []string{"-u", "root", "c1", "x"}},
		"group name":        {"", "parsing wheel as int for gid failed", []string{"-u", "1:wheel", "c1", "x"}},
		"negative group":    {"", "additional-gids must be a positive number -1", []string{"-g", "-1", "c1", "x"}},
		"no file":           {"", "no such file or directory", []string{"-p", "/no/such", "c1"}},
		"file without args": {`{"cwd": "/"}`, "process.args: must not be empty", []string{"-p", file, "c1"}},
		"file of null":      {"null", "process cannot be null", []string{"-p", file, "c1"}},
		"broken file":       {"{", "unexpected end of JSON input", []string{"-p", file, "c1"}},
		"wrong type":        {`{"args": "x"}`, "cannot unmarshal string", []string{"-p", file, "c1"}},
	} {
		write(c.text)
		if _, err := try(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestUpdateResources(t *testing.T) {
	a := &app{}
	try := func(args ...string) (text string, err error) {
		parse(t, a.updateCommand(), func(cmd *cli.Command) {
			var r *specs.LinuxResources
			if r, err = updateResources(cmd); err == nil {
				var data []byte
				if data, err = json.Marshal(r); err == nil {
					text = string(data)
				}
			}
		}, append(args, "c1")...)
		return text, err
	}
	file := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(file, []byte(`{"pids": {"limit": 5}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                              "{}",
		"--memory 10m --memory-swap -1": `{"memory":{"limit":10485760,"swap":-1}}`,
		"--cpu-quota 5000 --cpu-period 10000 --cpu-share 2": `{"cpu":{"shares":2,"quota":5000,"period":10000}}`,
		"--cpuset-cpus 0-1 --cpuset-mems 0":                 `{"cpu":{"cpus":"0-1","mems":"0"}}`,
		"--blkio-weight 500":                                `{"blockIO":{"weight":500}}`,
		"--cpu-burst 500 --cpu-idle 1":                      `{"cpu":{"burst":500,"idle":1}}`,
		"--pids-limit 9 --kernel-memory 1":                  `{"pids":{"limit":9}}`,
		"-r " + file + " --memory x":                        `{"pids":{"limit":5}}`,
	} {
		if got, err := try(strings.Fields(args)...); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", args, got, err, want)
		}
	}
	for args, want := range map[string]string{
		"--memory lots":                      "invalid value for memory",
		"--memory 99999999999g":              "out of range",
		"--pids-limit 1k":                    "invalid value for pids-limit",
		"--blkio-weight 70000":               `invalid value for blkio-weight: "70000" is out of range`,
		"--cpu-rt-period 5":                  "--cpu-rt-period is not supported yet",
		"-r /no/such":                        "no such file",
		"-r " + filepath.Dir(file):           "is a directory",
		"-r " + os.Args[0] + " --pids-limit": "resources: invalid character",
	} {
		fields := strings.Fields(args)
		if strings.HasSuffix(args, "--pids-limit") {
			fields = fields[:2]
		}
		if got, err := try(fields...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v, want %q", args, got, err, want)
		}
	}
}

func TestFilterPs(t *testing.T) {
	out := "UID PID CMD\nroot 1 init\nroot 22 lucid sandbox c1\nroot 222 other\n"
	var b strings.Builder
	if err := filterPs(&b, out, []int{22}); err != nil || b.String() != "UID PID CMD\nroot 22 lucid sandbox c1\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	for _, bad := range []string{"", "UID CMD\n", "PID\nx\n"} {
		if err := filterPs(&b, bad, nil); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestEventJSON: the keys that callers parse.
func TestEventJSON(t *testing.T) {
	data, err := json.Marshal(event{Type: "stats", ID: "c1", Data: statsData(&wire.StatsResult{
		CPUUsageUS: 3, CPUUserUS: 1, CPUSystemUS: 2, MemoryCurrent: 4096, MemoryFile: 5, PidsCurrent: 2, PidsMax: 9,
	})})
	want := `{"type":"stats","id":"c1","data":{"cpu":{"usage":{"total":3000,"kernel":2000,"user":1000},"throttling":{}},` +
		`"memory":{"cache":5,"usage":{"limit":18446744073709551615,"usage":4096,"failcnt":0},"raw":{"file":5,"inactive_file":0}},"pids":{"current":2,"limit":9}}}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}
