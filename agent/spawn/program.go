package spawn

// Program is a list of system calls. Build it, then give it to Child.Run; it
// cannot be changed after that.
type Program struct {
	steps []step
	names []string // of the steps, for errors
	keep  []any    // what the steps point to
}

// Call adds a system call. name says in an error what it was for.
func (p *Program) Call(name string, nr uintptr, args ...uintptr) {
	p.add(name, nr, 0, args)
}

// Try adds a system call that may fail.
func (p *Program) Try(name string, nr uintptr, args ...uintptr) {
	p.add(name, nr, 1, args)
}

func (p *Program) add(name string, nr, mayFail uintptr, args []uintptr) {
	s := step{nr: nr, mayFail: mayFail}
	copy(s.args[:], args)
	p.steps = append(p.steps, s)
	p.names = append(p.names, name)
}

// String returns the address of a NUL-terminated copy of s. A NUL inside s
// would cut it off: callers refuse such strings first.
func (p *Program) String(s string) uintptr {
	b := make([]byte, len(s)+1)
	copy(b, s)
	p.keep = append(p.keep, b)
	return addressOf(b)
}

// Strings returns the address of a NULL-terminated array of strings, as execve
// takes it.
func (p *Program) Strings(list []string) uintptr {
	addrs := make([]uintptr, len(list)+1)
	for i, s := range list {
		addrs[i] = p.String(s)
	}
	p.keep = append(p.keep, addrs)
	return addressOf(addrs)
}

// Data returns the address of a copy of the elements.
func Data[T uint16 | uint32 | uint64 | byte](p *Program, elems ...T) uintptr {
	b := make([]T, len(elems)+1) // never empty, so that it has an address of its own
	copy(b, elems)
	p.keep = append(p.keep, b)
	return addressOf(b)
}
