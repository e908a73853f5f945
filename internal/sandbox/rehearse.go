package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

// rehearsal is the plan of a template's VM: that machine, and a container for
// which no file of the host is needed. It is `lucid spec`'s with another program.
func rehearsal(vm oci.VM) (*oci.Plan, error) {
	spec := oci.Example()
	spec.Process.Terminal = false
	spec.Process.Args = []string{wire.RehearsalProgram}
	spec.Root.Path = "/" // Split wants to see a directory; nobody else looks at it
	plan, err := oci.Split(spec, "/")
	if err != nil {
		return nil, fmt.Errorf("rehearsal: %w", err)
	}
	plan.VM = vm
	plan.Host = oci.Host{Rootfs: oci.Export{Name: wire.RehearsalRootfs}}
	return plan, nil
}

// rehearse has the guest create, run and delete a container, so that its clones
// do not do all of that for the first time.
func (s *sandbox) rehearse(ctx context.Context) error {
	err := s.runRehearsal(ctx)
	if err != nil {
		return fmt.Errorf("rehearsal: %w", err)
	}
	return nil
}

func (s *sandbox) runRehearsal(ctx context.Context) error {
	var ours, theirs [3]*os.File
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		if ours[i], theirs[i] = r, w; i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	files := newStdio(false, theirs[0], theirs[1], theirs[2])
	defer files.close()
	_ = ours[0].Close() // the end of stdin
	if err := s.c.create(ctx, s.machine.link.streams(), files); err != nil {
		return err
	}
	if err := s.c.start(ctx); err != nil {
		return err
	}
	select {
	case x := <-s.c.ended:
		if files.drain(ctx, x.Stdout, x.Stderr); x.Status != 0 || x.Stdout != 1 {
			return fmt.Errorf("the guest's program ended with %d after %d bytes", x.Status, x.Stdout)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	var refused *wire.Error
	err := s.c.client.Call(ctx, wire.MethodDeleteContainer, &wire.DeleteContainer{ID: s.c.id}, nil)
	if errors.As(err, &refused) {
		return guestError(err)
	}
	return err
}
