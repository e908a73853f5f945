//go:build e2e

// Package inguest holds tests whose binary runs inside a container: TestInGuest (test/e2e) takes it there.
package inguest

import (
	"os"
	"testing"

	"github.com/lucid-containers/lucid/p9server/p9test"
)

// TestDirectory is the 9P server's acceptance suite, through the guest's own client.
func TestDirectory(t *testing.T) {
	dir := os.Getenv("LUCID_TEST_DIR")
	if dir == "" {
		t.Fatal("LUCID_TEST_DIR is not set: test/e2e runs this binary in a container")
	}
	p9test.Directory(t, dir)
}
