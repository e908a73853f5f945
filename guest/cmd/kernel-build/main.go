// Command kernel-build builds the guest kernel into guest/out, or takes it from
// the cache. Run it at the root of the repository:
//
//	go run ./guest/cmd/kernel-build
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/lucid-containers/lucid/guest/kernel"
)

func main() {
	c := kernel.Config{Log: os.Stderr}
	flag.StringVar(&c.Source, "source", kernel.DefaultSource, "kernel source tarball")
	flag.StringVar(&c.Out, "out", "guest/out", "directory for vmlinux, System.map and .config")
	flag.StringVar(&c.Cache, "cache", "", "cache directory (default ${LUCID_CACHE:-~/.cache/lucid}/kernel)")
	flag.IntVar(&c.Jobs, "j", runtime.NumCPU(), "parallel compilations")
	extra := flag.String("extra", "", "directory with further *.fragment files that override the built-in ones, for experiments")
	tree := flag.String("tree", "", "compile in this directory and keep it, for experiments: no cache, but minutes less from the second build on")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := build(ctx, c, *extra, *tree); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func build(ctx context.Context, c kernel.Config, extra, tree string) error {
	options, err := kernel.Fragments()
	if err != nil {
		return err
	}
	if extra != "" {
		more, err := kernel.Merge(os.DirFS(extra))
		if err != nil {
			return err
		}
		options = kernel.Override(options, more)
	}
	c.Options = options
	if tree != "" {
		return kernel.BuildIn(ctx, c, tree)
	}
	_, err = kernel.Build(ctx, c)
	return err
}
