package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// needs maps a program or header to the Debian package that has it.
var needs = []struct{ what, pkg string }{
	{"gcc", "gcc"},
	{"ld", "binutils"},
	{"make", "make"},
	{"flex", "flex"},
	{"bison", "bison"},
	{"bc", "bc"},
	{"tar", "tar"},
	{"xz", "xz-utils"},
	{"/usr/include/gelf.h", "libelf-dev"}, // objtool
}

// checkTools returns one error that names all missing packages.
func checkTools(source string) error {
	var missing []string
	if _, err := os.Stat(source); err != nil {
		if source != DefaultSource {
			return fmt.Errorf("kernel: source tarball: %w", err)
		}
		missing = append(missing, "linux-source-6.12")
	}
	for _, n := range needs {
		var err error
		if strings.HasPrefix(n.what, "/") {
			_, err = os.Stat(n.what)
		} else {
			_, err = exec.LookPath(n.what)
		}
		if err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("kernel: missing tools, run: apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}
