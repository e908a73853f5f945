//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestHooksInContainer: createContainer works on the root file system from the host, startContainer in the VM; both before
// the process, and both know whose they are.
func TestHooksInContainer(t *testing.T) {
	b := newBundle(t, "cat", "/host", "/guest")
	sh := func(script string) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-ec", script}, Env: []string{"PATH=/usr/bin:/bin"}}
	}
	b.spec.Hooks = &specs.Hooks{
		CreateContainer: []specs.Hook{sh(`cat >host; echo >>host; uname -r >>host`)},
		StartContainer:  []specs.Hook{sh(`test -s /host; cat >/guest; echo >>/guest; uname -r >>/guest; test $$ -gt 1`)},
	}
	r := b.run(nil)
	r.wantCode(t, 0)
	wantContains(t, r.stdout, `"id":"`+b.id+`","status":"creating"`, `{"pid":1,"ociVersion":`, `"id":"`+b.id+`","status":"created","bundle":"`+b.dir+`"`)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	if n := strings.Count(r.stdout, strings.TrimSpace(string(release))); n != 1 {
		t.Errorf("%d hooks ran on the host's kernel, want 1:\n%s", n, r.stdout)
	}

	// A failure is the command's, and nothing is left.
	for kind, hooks := range map[string]*specs.Hooks{
		"createContainer": {CreateContainer: []specs.Hook{sh("echo no such luck >&2; exit 3")}},
		"startContainer":  {StartContainer: []specs.Hook{sh("echo no such luck >&2; exit 3")}},
	} {
		b := newBundle(t, "touch", "/ran")
		b.spec.Hooks = hooks
		r := b.run(nil)
		r.wantCode(t, 1)
		wantContains(t, r.stderr, kind+" hook /bin/sh: exit status 3: no such luck")
		if _, err := os.Stat(filepath.Join(b.root, "ran")); !os.IsNotExist(err) {
			t.Errorf("%s: the process ran: %v", kind, err)
		}
		wantContains(t, lucid(t, nil, "state", b.id).stderr, "container does not exist")
		wantNoProcesses(t, b.id)
	}
}
