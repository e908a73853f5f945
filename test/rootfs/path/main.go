// Path prints the path of the tar of the smallest Debian, and makes it first when the cache has none.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/lucid-containers/lucid/test/rootfs"
)

func main() {
	path, err := rootfs.Tar(context.Background(), rootfs.Minimal, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rootfs:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
