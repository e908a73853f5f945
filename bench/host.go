package bench

import (
	"bytes"
	"context"
	"io"
	"os/exec"

	"github.com/lucid-containers/lucid/internal/oci"
)

func (hostSubject) run(ctx context.Context, w *World, b *bundle, in io.Reader, out io.Writer) error {
	spec, err := oci.Load(b.dir)
	if err != nil {
		return err
	}
	ctx, cancel := withLimit(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, spec.Process.Args[0], spec.Process.Args[1:]...)
	cmd.SysProcAttr, cmd.Dir = chroot(spec.Root.Path), "/"
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &errs
	if err := cmd.Run(); err != nil {
		return failed(ctx, spec.Process.Args[0], err, errs.String())
	}
	return nil
}
