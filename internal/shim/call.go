package shim

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lucid-containers/lucid/internal/oci"
)

// The actions. serve is our own: start runs it.
const (
	actionStart  = "start"
	actionDelete = "delete"
	actionServe  = "serve"
)

// call is how this program was called.
type call struct {
	id        string
	namespace string
	address   string // containerd's gRPC socket; part of our socket's name
	binary    string // containerd's program, which nothing here needs
	bundle    string // empty: the working directory
	ttrpc     string // where events go; empty: nowhere
	socketDir string
	// shimCgroup is where the server process is to be; empty: where this one is.
	shimCgroup string
	debug      bool
	version    bool
	info       bool
	action     string
	role       oci.Role
	group      string // the sandbox or group whose shim it is; empty: of this container
	// maxVersion is the newest protocol of a containerd of 1.7 and later; 0 before.
	maxVersion int
}

// parseCall reads the command line and the environment. Every containerd since
// 1.6 gives both, also those that say the same once more on stdin.
func parseCall(args []string, getenv func(string) string) (*call, error) {
	c := &call{ttrpc: getenv("TTRPC_ADDRESS")}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&c.id, "id", "", "ID of the container")
	f.StringVar(&c.namespace, "namespace", "", "containerd's namespace")
	f.StringVar(&c.address, "address", "", "containerd's socket")
	f.StringVar(&c.binary, "publish-binary", "", "containerd's program")
	f.StringVar(&c.bundle, "bundle", "", "the bundle, if it is not the working directory")
	f.BoolVar(&c.debug, "debug", false, "log more")
	f.BoolVar(&c.version, "v", false, "print the version")
	f.BoolVar(&c.version, "version", false, "print the version")
	f.BoolVar(&c.info, "info", false, "print a RuntimeInfo message")
	f.StringVar(&c.socketDir, "socket-dir", "", "directory of the shim's socket")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if v := getenv("MAX_SHIM_VERSION"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fmt.Errorf("MAX_SHIM_VERSION=%q is not a number", v)
		}
		c.maxVersion = n
	}
	c.action = f.Arg(0)
	if c.version || c.info {
		return c, nil
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.role, c.group = c.readRole()
	return c, nil
}

// sandboxFile is where containerd 2 writes the ID of the sandbox of a container for which it has not called `start`.
const sandboxFile = "sandbox"

// readRole looks into the bundle for what groups containers. What is wrong with it is
// told by Create.
func (c *call) readRole() (oci.Role, string) {
	if id, err := os.ReadFile(c.inBundle(sandboxFile)); err == nil && len(id) > 0 {
		return oci.Member, string(id)
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	data, err := os.ReadFile(c.inBundle(oci.ConfigFile))
	if err != nil || json.Unmarshal(data, &config) != nil {
		return oci.Alone, ""
	}
	return oci.RoleOf(config.Annotations, c.id)
}

func (c *call) check() error {
	switch c.action {
	case actionStart, actionDelete, actionServe:
	default:
		return fmt.Errorf("%q is none of the actions start and delete: containerd calls this program, see docs/containerd.md", c.action)
	}
	if c.id == "" {
		return errors.New("-id is missing")
	}
	if c.namespace == "" {
		return errors.New("-namespace is missing")
	}
	for _, name := range []string{c.id, c.namespace} {
		if strings.Contains(name, "/") || name == "." || name == ".." {
			return fmt.Errorf("%q is neither an ID nor a namespace", name)
		}
	}
	if c.bundle != "" && !filepath.IsAbs(c.bundle) {
		return fmt.Errorf("-bundle %q is not an absolute path", c.bundle)
	}
	return nil
}

// stateRoot is where lucid keeps the containers of each namespace: `lucid --root
// /run/containerd/lucid/NAMESPACE list` shows them.
const stateRoot = "/run/containerd/lucid"

func (c *call) root() string { return filepath.Join(stateRoot, c.namespace) }
