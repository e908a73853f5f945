// Package reap is the one place of the agent that waits for processes.
//
// PID 1 inherits orphans, and a wait for any child takes the status of every
// child, so there is one owner: RoutineReap hands statuses to those who wait.
// A process is made inside Spawn, which keeps the reaper from taking a status
// that nobody has registered for yet. A Reaper is safe for concurrent use.
//
// It sleeps until SIGCHLD, and not in waitid: a goroutine that waits in a system
// call keeps its P until the runtime's monitor looks, and in a guest of one CPU
// with one P every request that comes meanwhile waits too, up to 40 ms.
//
//	p, err := r.Spawn(func() (int, error) { ...; return pid, err })
//	status := <-p.Done
package reap
