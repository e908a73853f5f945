package ninep

// over says whether nothing comes of this queue any more.
func (r *run) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return r.q.Stopped()
	}
}

func (r *run) arm() {
	if r.armed.CompareAndSwap(false, true) {
		r.timer.Reset(patience)
	}
}

// wanted says whether somebody waits for a turn that another one has.
func (r *run) wanted() bool { return r.again.Load() && r.turn.taken() }

// monitor is the timer's tick.
func (r *run) monitor() {
	if r.over() {
		r.armed.Store(false) // nobody gives the turn back
		return
	}
	now := r.turn.v.Load()
	if now&turnState >= turnLeader && now == r.seen && !r.promote(now) {
		r.timer.Reset(16 * patience) // all are stuck: look less often
		return
	}
	r.seen = now
	if r.wanted() {
		r.timer.Reset(patience)
		return
	}
	r.armed.Store(false)
	if r.wanted() {
		r.arm()
	}
}

// promote takes the turn from who is stuck in request busy, and sees to it that
// another has it. It returns false if there is none: the guest waits then.
func (r *run) promote(busy uint64) bool {
	if busy&turnState == turnVCPU {
		if r.turn.revoke(busy) {
			r.q.Kick() // the leader waits for it
		}
		return true
	}
	if r.idle.Load() == 0 && !r.spawn(job{}) {
		return false
	}
	if r.turn.revoke(busy) {
		r.lead <- struct{}{} // never blocks: there is only one leadership
	}
	return true
}
