package initramfs

// Agent returns the whole initramfs of a sandbox: the agent as /init, the two
// device nodes that exist before it has mounted anything, and the directories
// it mounts on. Every further entry costs the guest some ten thousand
// instructions.
func Agent(binary []byte) []File {
	const (
		memMajor, nullMinor    = 1, 3 // Documentation/admin-guide/devices.txt
		ttyMajor, consoleMinor = 5, 1
	)
	return []File{
		Dir("dev", 0o755),
		// The kernel opens /dev/console as the first three descriptors of init.
		Char("dev/console", 0o600, ttyMajor, consoleMinor),
		// Go's os/exec and the agent use it before /dev is mounted.
		Char("dev/null", 0o666, memMajor, nullMinor),
		Dir("proc", 0o555),
		Dir("sys", 0o555),
		Dir("run", 0o755),
		Regular("init", 0o755, binary),
	}
}
