// Path prints the path of the tar of the Debian that the benchmark uses, and makes it first when the cache has none.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/lucid-containers/lucid/test/rootfs"
)

func main() {
	path, err := rootfs.Tar(context.Background(), rootfs.Userland, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rootfs:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
