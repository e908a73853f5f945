// Command prog is what the containers of the tests run: a few tools in one
// static binary, chosen by the first argument.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "prog:", err)
		os.Exit(1)
	}
}

func run(tool string, args []string) error {
	switch tool {
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "exit":
		n, _ := strconv.Atoi(args[0])
		os.Exit(n)
	case "cat":
		if len(args) == 0 {
			_, err := io.Copy(os.Stdout, os.Stdin)
			return err
		}
		for _, name := range args {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			_, _ = os.Stdout.Write(b)
		}
	case "env":
		env := os.Environ()
		sort.Strings(env)
		fmt.Println(strings.Join(env, "\n"))
	case "ls":
		entries, err := os.ReadDir(args[0])
		if err != nil {
			return err
		}
		for _, e := range entries {
			fmt.Println(e.Name(), e.Type())
		}
	case "write":
		return os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "stat":
		return stat(args)
	case "id":
		groups, _ := os.Getgroups()
		host, _ := os.Hostname()
		cwd, _ := os.Getwd()
		fmt.Println(os.Getuid(), os.Getgid(), groups, os.Getpid(), host, cwd)
	case "rlimit":
		n, _ := strconv.Atoi(args[0])
		var l syscall.Rlimit
		if err := syscall.Getrlimit(n, &l); err != nil {
			return err
		}
		fmt.Println(l.Cur, l.Max)
	case "umask":
		fmt.Printf("%03o\n", syscall.Umask(0))
	case "syscall":
		var nr [4]uintptr
		for i, a := range args {
			n, _ := strconv.ParseUint(a, 0, 64)
			nr[i] = uintptr(n)
		}
		_, _, errno := syscall.RawSyscall(nr[0], nr[1], nr[2], nr[3])
		fmt.Println(int(errno))
	case "sleep":
		time.Sleep(time.Hour)
	case "trap":
		trap()
	case "background":
		return background(args)
	case "tty":
		return tty()
	case "size":
		return size()
	case "bomb":
		bomb()
	case "hook":
		return hook(args)
	case "errout":
		fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	default:
		return runInPod(tool, args)
	}
	return nil
}

// runInPod has the tools for what containers share.
func runInPod(tool string, args []string) error {
	switch tool {
	case "namespaces":
		for _, ns := range args {
			to, err := os.Readlink("/proc/self/ns/" + ns)
			if err != nil {
				return err
			}
			fmt.Println(to)
		}
	case "orphans":
		n, _ := strconv.Atoi(args[0])
		return orphans(n)
	case "orphan":
		return orphan()
	case "eat":
		eat()
	case "nap":
		time.Sleep(300 * time.Millisecond)
	default:
		return fmt.Errorf("no tool %q", tool)
	}
	return nil
}

// trap ends with a status of its own at SIGTERM.
func trap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	<-c
	os.Exit(42)
}

func stat(names []string) error {
	for _, name := range names {
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			fmt.Println(name, err)
			continue
		}
		fmt.Printf("%s %o %d:%d %d\n", name, st.Mode, st.Rdev>>8, st.Rdev&0xff, st.Uid)
	}
	return nil
}

// background leaves a process behind that holds stdout.
func background(args []string) error {
	p, err := os.StartProcess("/bin/prog", append([]string{"prog"}, args...), &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, nil},
	})
	if err != nil {
		return err
	}
	fmt.Println("left", p.Pid > 0)
	return nil
}

func tty() error {
	var st syscall.Stat_t
	if err := syscall.Fstat(0, &st); err != nil {
		return err
	}
	var console syscall.Stat_t
	if err := syscall.Stat("/dev/console", &console); err != nil {
		return err
	}
	f, err := os.Open("/dev/tty")
	fmt.Println("tty", st.Rdev>>8, st.Rdev == console.Rdev, err == nil)
	if err == nil {
		_ = f.Close()
	}
	line := make([]byte, 100)
	n, err := os.Stdin.Read(line)
	fmt.Printf("read %q\n", line[:n])
	return err
}

// bomb makes threads until the kernel gives no more. Go ends a program that
// cannot have a thread, so it makes them with clone itself: the shortest
// processes there are, which stay as they are.
func bomb() {
	for {
		// A child that shares nothing and stops at once.
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		if pid == 0 {
			for {
				_, _, _ = syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
			}
		}
	}
	fmt.Println("full")
	time.Sleep(time.Hour)
}

// eat takes memory until something ends it.
func eat() {
	const step = 1 << 20
	var all [][]byte
	for {
		b := make([]byte, step)
		for i := 0; i < step; i += os.Getpagesize() {
			b[i] = 1
		}
		all = append(all, b)
	}
}

// hook appends to a file what it is and what it reads.
func hook(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	state, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, os.Args[0], args[1:], os.Environ(), os.Getuid(), cwd, string(state))
	return err
}

// orphan leaves a process behind and prints its number.
func orphan() error {
	p, err := os.StartProcess("/bin/prog", []string{"prog", "nap"}, &os.ProcAttr{Files: []*os.File{nil, nil, nil}})
	if err == nil {
		fmt.Println(p.Pid)
	}
	return err
}

// orphans makes n processes whose parent ends before them. It prints the parent that
// they get, and how many are left as zombies when they have ended.
func orphans(n int) error {
	var last string
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		p, err := os.StartProcess("/bin/prog", []string{"prog", "orphan"}, &os.ProcAttr{Files: []*os.File{nil, w, os.Stderr}})
		if err != nil {
			return err
		}
		_ = w.Close()
		pid, _ := io.ReadAll(r)
		_ = r.Close()
		if _, err := p.Wait(); err != nil {
			return err
		}
		last = strings.TrimSpace(string(pid))
	}
	fields, err := stats(last)
	if err != nil {
		return err
	}
	fmt.Println(fields[1])
	time.Sleep(time.Second)
	zombies := 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fields, err := stats(e.Name()); err == nil && fields[0] == "Z" {
			zombies++
		}
	}
	fmt.Println(zombies)
	return nil
}

// stats is /proc/PID/stat from the state on.
func stats(pid string) ([]string, error) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:])), nil
}
