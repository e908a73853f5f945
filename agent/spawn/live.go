package spawn

import "sync"

// live keeps the memory of children that may still read it: a child is no
// goroutine, so the garbage collector does not see what it points to.
var live liveSet

type liveSet struct {
	mu  sync.Mutex
	set map[*Child]struct{} // protected by mu
}

func (l *liveSet) add(c *Child) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		l.set = make(map[*Child]struct{})
	}
	l.set[c] = struct{}{}
}

func (l *liveSet) remove(c *Child) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.set, c)
}
