// Package ninep is the virtio 9P transport device: it carries 9P frames between
// the guest's v9fs and a Session, and knows nothing of 9P but its name. The
// device id is in virtio 1.2 §5; the configuration space and the feature bit are
// those of the Linux driver (include/uapi/linux/virtio_9p.h).
//
// One chain is one request: the frame in the readable part, room for the reply
// in the writable part. Both go to the Session as views of guest memory, so that
// file data moves between disk and guest without a copy.
//
// Threads: run.go tells who handles what. Requests are served on the vCPU that
// kicks, or by up to Config.Workers goroutines at once. A request that no host can interrupt (a
// read from a dead network disk) holds up Reset, because it may still write to
// guest pages: the device must not say that it has stopped before it has. The
// transport bounds what the guest and the VMM wait for that (mmio.ResetWait);
// after mmio.ErrBusy guest memory must stay mapped until the process ends.
//
//	dev, err := ninep.New(ninep.Config{
//		Tag:        "lucid",
//		NewSession: func() ninep.Session { return session{server.NewSession()} },
//	})
package ninep

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lucid-containers/lucid/devices/virtio"
)

const (
	// FeatureMountTag is VIRTIO_9P_MOUNT_TAG of linux/virtio_9p.h: the
	// configuration space holds a tag.
	FeatureMountTag = 1 << 0

	// QueueSize is VIRTQUEUE_NUM of net/9p/trans_virtio.c, the most that the
	// driver uses.
	QueueSize = 128

	// DefaultWorkers is how many requests are handled at once by default.
	DefaultWorkers = 8

	maxTag = 128 // of the implementation; the window has room for 254
)

// Session serves the requests of one activation of the device. It is the
// device's view of a 9P server.
type Session interface {
	// Accept takes a request, in the order in which the guest sent them: a
	// Tflush must find the request that it is about. req aliases guest memory,
	// which may change at any time, until Serve returns.
	Accept(req [][]byte) Request
	// Close frees what the session holds. No request is under way then.
	Close()
}

// Request is one that was accepted. Serve and Done are called once, Serve by any
// worker or vCPU (not at all if the device is reset before), Done after the guest
// can see the reply.
type Request interface {
	// Quick says whether Serve is likely to be over soon, and nobody but this
	// host's disks can keep it waiting: a vCPU serves it itself.
	Quick() bool
	// Serve does it and returns how many bytes it wrote into reply, which
	// aliases guest memory; 0 drops the request.
	Serve(reply [][]byte) (n int)
	Done()
}

// Config is what New needs.
type Config struct {
	Tag        string         // what the guest mounts by, 1 to 128 bytes
	NewSession func() Session // called at each activation
	Workers    int            // concurrent Serve calls; 0: DefaultWorkers
}

// Device is one 9P device.
type Device struct {
	cfg    Config
	config virtio.StaticConfig
	run    atomic.Pointer[run] // nil when idle; Activate and Reset are never called at once
}

// New makes an idle device.
func New(cfg Config) (*Device, error) {
	if len(cfg.Tag) == 0 || len(cfg.Tag) > maxTag {
		return nil, fmt.Errorf("virtio-9p: mount tag of %d bytes", len(cfg.Tag))
	}
	if cfg.NewSession == nil {
		return nil, errors.New("virtio-9p: no session")
	}
	if cfg.Workers == 0 {
		cfg.Workers = DefaultWorkers
	}
	if cfg.Workers < 1 || cfg.Workers > QueueSize {
		return nil, fmt.Errorf("virtio-9p: %d workers", cfg.Workers)
	}
	// struct virtio_9p_config: le16 tag_len, then the tag without a NUL.
	config := binary.LittleEndian.AppendUint16(nil, uint16(len(cfg.Tag)))
	return &Device{cfg: cfg, config: append(config, cfg.Tag...)}, nil
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.Type9P }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return FeatureMountTag }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{QueueSize} }

// Config implements virtio.Device.
func (d *Device) Config() virtio.ConfigSpace { return d.config }

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	q := a.Queues[0]
	if q == nil {
		return errors.New("virtio-9p: request queue not set up")
	}
	d.run.Store(startRun(q, d.cfg.NewSession(), d.cfg.Workers, a.Fail))
	return nil
}

// Kick implements virtio.Kicked.
func (d *Device) Kick(int) {
	if r := d.run.Load(); r != nil {
		r.kicked()
	}
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	if r := d.run.Load(); r != nil {
		r.stop()
		d.run.Store(nil)
	}
}
