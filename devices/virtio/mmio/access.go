package mmio

import (
	"encoding/binary"
	"fmt"

	"github.com/lucid-containers/lucid/devices/virtio"
	"github.com/lucid-containers/lucid/devices/virtio/virtq"
)

// Read implements bus.Handler. Registers answer aligned 32-bit reads, the only
// ones that a driver may do (virtio 1.2 §4.2.2.2); any other read is zero.
// Configuration space answers every width.
func (t *Transport) Read(off uint64, p []byte) {
	clear(p)
	switch {
	case off >= regConfig:
		if t.config != nil && off < WindowSize {
			t.config.ReadConfig(off-regConfig, p)
		}
	case off == regInterruptStatus && len(p) == 4: // read at every interrupt: no lock
		binary.LittleEndian.PutUint32(p, t.intStatus.Load())
	case off%4 == 0 && len(p) == 4:
		binary.LittleEndian.PutUint32(p, t.readReg(off))
	}
}

// Write implements bus.Handler, like Read.
func (t *Transport) Write(off uint64, p []byte) {
	switch {
	case off >= regConfig:
		if t.config != nil && off < WindowSize {
			t.config.WriteConfig(off-regConfig, p)
		}
	case off%4 != 0 || len(p) != 4:
	case off == regQueueNotify:
		t.notify(binary.LittleEndian.Uint32(p))
	case off == regInterruptACK:
		t.intStatus.And(^binary.LittleEndian.Uint32(p))
	default:
		t.writeReg(off, binary.LittleEndian.Uint32(p))
	}
}

func (t *Transport) notify(queue uint32) {
	switch {
	case queue >= uint32(len(t.kicks)):
	case t.kicked != nil:
		t.kicked.Kick(int(queue))
	default:
		_ = t.kicks[queue].Signal() // fails only after Close
	}
}

func (t *Transport) readReg(off uint64) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy()
	switch off {
	case regMagic:
		return magic
	case regVersion:
		return version
	case regDeviceID:
		return t.dev.Type()
	case regVendorID:
		return vendorID
	case regDeviceFeatures:
		if t.devSel > 1 {
			return 0
		}
		return uint32(t.features >> (32 * t.devSel))
	case regQueueNumMax:
		if q := t.queue(); q != nil {
			return q.max
		}
	case regQueueReady:
		if q := t.queue(); q != nil && q.ready {
			return 1
		}
	case regStatus:
		return t.Status()
	case regSHMLenLow, regSHMLenHigh, regSHMBaseLow, regSHMBaseHigh:
		return 0xffffffff // virtio 1.2 §4.2.2: no such region
	case regConfigGeneration:
		return t.generation.Load()
	}
	return 0
}

// queue returns the selected queue, nil if there is none. Mu is held.
func (t *Transport) queue() *queueRegs {
	if t.queueSel >= uint32(len(t.queues)) {
		return nil
	}
	return &t.queues[t.queueSel]
}

func (t *Transport) writeReg(off uint64, v uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy() || t.closed {
		return
	}
	switch off {
	case regDeviceFeaturesSel:
		t.devSel = v
	case regDriverFeaturesSel:
		t.drvSel = v
	case regDriverFeatures:
		// virtio 1.2 §3.1.1: features are settled by FEATURES_OK.
		if t.Status()&statusFeaturesOK == 0 && t.drvSel <= 1 {
			shift := 32 * t.drvSel
			t.drvFeat = t.drvFeat&^(0xffffffff<<shift) | uint64(v)<<shift
		}
	case regQueueSel:
		t.queueSel = v
	case regStatus:
		t.writeStatus(v)
	default:
		t.writeQueue(off, v)
	}
}

// writeQueue configures the selected queue. It freezes at DRIVER_OK: what the
// device uses is a copy, and a driver that changes its mind is ignored.
func (t *Transport) writeQueue(off uint64, v uint32) {
	q := t.queue()
	if q == nil || t.Status()&statusDriverOK != 0 {
		return
	}
	if off == regQueueReady {
		q.ready = v&1 != 0
		return
	}
	if q.ready {
		return
	}
	switch off {
	case regQueueNum:
		q.num = v
	case regQueueDescLow:
		setLow(&q.desc, v)
	case regQueueDescHigh:
		setHigh(&q.desc, v)
	case regQueueDriverLow:
		setLow(&q.avail, v)
	case regQueueDriverHigh:
		setHigh(&q.avail, v)
	case regQueueDeviceLow:
		setLow(&q.used, v)
	case regQueueDeviceHigh:
		setHigh(&q.used, v)
	}
}

func setLow(p *uint64, v uint32)  { *p = *p&^0xffffffff | uint64(v) }
func setHigh(p *uint64, v uint32) { *p = *p&0xffffffff | uint64(v)<<32 }

// writeStatus steps the status machine of virtio 1.2 §3.1.1. A step out of
// order has no effect, so the driver reads back that it was refused.
//
//	0 ─▶ ACKNOWLEDGE ─▶ DRIVER ─▶ FEATURES_OK ─▶ DRIVER_OK
//	any ─▶ FAILED;  any ─▶ 0 (reset)
func (t *Transport) writeStatus(v uint32) {
	if v == 0 {
		_ = t.reset() // ErrBusy shows as a status that stays non-zero
		return
	}
	cur := t.Status()
	const known = statusAcknowledge | statusDriver | statusDriverOK | statusFeaturesOK | statusFailed
	if cur&known&^v != 0 || cur&statusFailed != 0 {
		return // virtio 1.2 §2.1.1: the driver must not clear a bit, nor go on after FAILED
	}
	for _, step := range []struct{ bit, needs uint32 }{
		{statusAcknowledge, 0},
		{statusDriver, statusAcknowledge},
		{statusFeaturesOK, statusDriver},
		{statusDriverOK, statusFeaturesOK},
		{statusFailed, 0},
	} {
		if v&^cur&step.bit == 0 {
			continue
		}
		if cur&step.needs != step.needs || step.bit == statusFeaturesOK && !t.featuresOK() {
			return
		}
		cur |= step.bit
		t.statusMu.Lock()
		t.status |= step.bit
		t.statusMu.Unlock()
		if step.bit == statusDriverOK {
			_ = t.activate(nil) // the driver sees NEEDS_RESET
		}
	}
}

func (t *Transport) featuresOK() bool {
	if extra := t.drvFeat &^ t.features; extra != 0 {
		t.log.Warn("virtio driver wants features not offered", "type", t.dev.Type(), "features", fmt.Sprintf("%#x", extra))
		return false
	}
	if t.drvFeat&virtio.FeatureVersion1 == 0 {
		t.log.Warn("legacy virtio driver refused", "type", t.dev.Type())
		return false
	}
	return true
}

// activate gives the queues to the device, which go on from at (nil: from the
// start). An error is the driver's to see; it is returned for Restore. Mu is
// held.
func (t *Transport) activate(at []virtq.State) error {
	act := &activation{queues: make([]*virtq.Queue, len(t.queues))}
	if err := t.makeQueues(act, at); err != nil {
		t.fail(act, err)
		return err
	}
	err := t.dev.Activate(virtio.Activation{
		Features:      t.drvFeat,
		Queues:        append([]*virtq.Queue(nil), act.queues...),
		ConfigChanged: func() { t.configChanged(act) },
		Fail:          func(err error) { t.fail(act, err) },
	})
	if err != nil {
		err = fmt.Errorf("activate: %w", err)
		t.fail(act, err)
		t.statusMu.Lock()
		act.dead = true
		t.statusMu.Unlock()
		return err
	}
	t.act = act
	return nil
}

func (t *Transport) makeQueues(act *activation, at []virtq.State) error {
	for i := range t.queues {
		r := &t.queues[i]
		if !r.ready {
			continue
		}
		if r.num > r.max {
			return fmt.Errorf("queue %d: %w: size %d of at most %d", i, virtq.ErrRing, r.num, r.max)
		}
		cfg := virtq.Config{
			Mem: t.mem, Size: uint16(r.num), Desc: r.desc, Avail: r.avail, Used: r.used,
			EventIdx:  t.drvFeat&virtio.FeatureEventIdx != 0,
			Indirect:  t.drvFeat&virtio.FeatureIndirectDesc != 0,
			Kick:      t.kicks[i],
			Interrupt: func() { t.interrupt(intUsed) },
		}
		if at != nil {
			cfg.State = at[i]
		}
		q, err := virtq.New(cfg)
		if err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
		act.queues[i] = q
	}
	return nil
}
