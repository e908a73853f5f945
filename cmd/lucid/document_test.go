package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocuments: each command and flag is in each completion and in the manual,
// and the shells and troff can read them.
func TestDocuments(t *testing.T) {
	all := verbs((&app{}).command())
	if len(all) < 15 {
		t.Fatalf("%d commands", len(all))
	}
	for _, c := range []struct {
		args  []string
		check []string // reads the file that is added
		flag  func(option) string
	}{
		{[]string{"completion", "bash"}, []string{"bash", "-n"}, func(o option) string { return "--" + o.long }},
		{[]string{"completion", "zsh"}, []string{"zsh", "-n"}, func(o option) string { return "--" + o.long + "[" }},
		{[]string{"completion", "fish"}, []string{"fish", "-n"}, func(o option) string { return " -l " + o.long }},
		{[]string{"man"}, []string{"groff", "-man", "-Tascii", "-ww", "-z"}, func(o option) string { return roff("--" + o.long) }},
	} {
		r := lucid(t, "/", c.args...)
		if r.code != 0 || r.stderr != "" {
			t.Fatalf("%v: %d, %s", c.args, r.code, r.stderr)
		}
		for _, v := range all {
			if !strings.Contains(r.stdout, v.name) || !strings.Contains(r.stdout, strings.Fields(v.usage)[0]) && c.args[len(c.args)-1] != "bash" {
				t.Errorf("%v has no %s", c.args, v.name)
			}
			for _, o := range append(v.options, options(globalFlags())...) {
				if o.long != "" && !strings.Contains(r.stdout, c.flag(o)) {
					t.Errorf("%v has no --%s of %s", c.args, o.long, v.name)
				}
			}
		}
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(r.stdout), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := exec.LookPath(c.check[0]); err != nil {
			t.Logf("%s is not installed: what it makes of its script is not checked", c.check[0])
			continue
		}
		if out, err := exec.Command(c.check[0], append(c.check[1:], file)...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %v, %s", c.check, err, out)
		}
	}
	if r := lucid(t, "/", "completion", "csh"); r.code != 1 || !strings.Contains(r.stderr, `"csh" is not a shell`) {
		t.Errorf("csh: %d, %s", r.code, r.stderr)
	}
}

// TestBashCompletion asks bash what it would offer.
func TestBashCompletion(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lucid.bash")
	if err := os.WriteFile(file, []byte(lucid(t, "/", "completion", "bash").stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"lucid cre":                       "create",
		"lucid --root /x st":              "start state",
		"lucid --log-format ":             "",
		"lucid create --cons":              "--console-socket",
		"lucid state ":                    "one two",
		"lucid --root /r kill t":          "two",
		"lucid kill one ":                 "",
		"lucid completion z":              "zsh",
		"lucid create -b /etc/passw":      "/etc/passwd /etc/passwd-",
		"lucid exec --user 1 o":           "one",
		"lucid run --pid-file /etc/host ": "",
	} {
		// A command named lucid that lists two containers.
		script := `lucid() { [ "$*" = "list -q" ] || [ "$*" = "--root /r list -q" ] && printf 'one\ntwo\n'; }; source "$1"
			read -ra COMP_WORDS <<<"$2"; [[ $2 == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _lucid; echo "${COMPREPLY[*]}"`
		out, err := exec.Command("bash", "-c", script, "bash", file, line).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want && !(strings.Contains(line, "passw") && strings.HasPrefix(got, "/etc/passwd")) {
			t.Errorf("%q: %q, %v, want %q", line, got, err, want)
		}
	}
}
