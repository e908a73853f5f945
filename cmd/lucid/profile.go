package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// profileDir is --profile as the sandbox process, which has another working directory, can use it. The directory is made.
func profileDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("--profile: %w", err)
	}
	return path, nil
}
