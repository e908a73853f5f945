// Package stage copies what tests run: who builds meanwhile must not change it.
package stage

import (
	"os"
	"path/filepath"
)

// Checkout copies the programs and the guest's parts of the checkout in the working directory into a new directory, where
// they lie as there, so that lucid finds its kernel. The caller removes it.
func Checkout(prefix string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", prefix); err != nil {
		return "", err
	}
	for _, name := range []string{"bin", "guest/out"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(name)); err != nil {
			_ = os.RemoveAll(dir)
			return "", err
		}
	}
	return dir, nil
}

// Program copies an executable file.
func Program(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
