package sandbox

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/p9server"
)

// exports are those of a pod's members, which come and go with them. The guest
// has one mount of the file server, so there is nothing to plug: a new export is a
// new name in its top directory.
//
// Two members that mount the same directory get one export: only then is a page
// of one of its files the same page for both.
type exports struct {
	files fileServer // set before there are members
	vm    *oci.VM    // the pod's

	mu     sync.Mutex
	all    map[string]*sharedExport // by name; protected by mu
	serial uint64                   // of the last one; protected by mu
}

// fileServer is what is used of a p9server.Server.
type fileServer interface {
	AddExport(p9server.Export) error
	RemoveExport(name string) error
}

type sharedExport struct {
	oci.Export
	users int
}

// add makes the exports of a plan available, and puts the names into it that
// they have in this pod. On an error it has added none.
func (x *exports) add(plan *oci.Plan) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var done []string
	for _, e := range planExports(plan) {
		name, err := x.use(*e)
		if err != nil {
			for _, n := range done {
				_ = x.release(n) // what failed is what counts
			}
			return fmt.Errorf("file server: %w", err)
		}
		done = append(done, name)
		e.Name = name
	}
	return nil
}

// remove takes back what add did.
func (x *exports) remove(plan *oci.Plan) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range planExports(plan) {
		_ = x.release(e.Name) // the server logs
	}
}

// planExports lists the exports of a plan.
func planExports(plan *oci.Plan) []*oci.Export {
	list := []*oci.Export{&plan.Host.Rootfs}
	for i := range plan.Host.Binds {
		list = append(list, &plan.Host.Binds[i].Export)
	}
	return list
}

// maxExportName leaves room for a number: a name has at most 255 bytes.
const maxExportName = 230

// use finds or makes an export. Precondition: mu is held.
func (x *exports) use(e oci.Export) (string, error) {
	// A guest that may write one of two mounts of a directory may write both,
	// whoever asks there: that the other is read-only is the agent's to see to.
	for _, readOnly := range []bool{false, e.ReadOnly} {
		for name, have := range x.all {
			if have.Path == e.Path && have.ReadOnly == readOnly {
				have.users++
				return name, nil
			}
		}
	}
	// No name twice: the guest may remember the directory that had it.
	x.serial++
	e.Name = e.Name[:min(len(e.Name), maxExportName)] + "." + strconv.FormatUint(x.serial, 10)
	if err := x.files.AddExport(export(e, x.vm)); err != nil {
		return "", err
	}
	if x.all == nil {
		x.all = make(map[string]*sharedExport)
	}
	x.all[e.Name] = &sharedExport{Export: e, users: 1}
	return e.Name, nil
}

var errNotUsed = errors.New("export is not in use")

// release gives one use up. Precondition: mu is held.
func (x *exports) release(name string) error {
	e := x.all[name]
	if e == nil {
		return errNotUsed
	}
	if e.users--; e.users > 0 {
		return nil
	}
	delete(x.all, name)
	return x.files.RemoveExport(name)
}
