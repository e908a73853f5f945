package virtio

// StaticConfig is a ConfigSpace that never changes and ignores writes.
type StaticConfig []byte

// ReadConfig implements ConfigSpace.
func (c StaticConfig) ReadConfig(off uint64, p []byte) {
	if off < uint64(len(c)) {
		copy(p, c[off:])
	}
}

// WriteConfig implements ConfigSpace.
func (c StaticConfig) WriteConfig(uint64, []byte) {}
