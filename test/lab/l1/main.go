package l1

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

// IsInit tells whether this process is the init of a lab L1.
func IsInit() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat(labproto.RequestPath)
	return err == nil
}

// Main does the job of the request and never returns.
func Main() {
	var ctl *control
	if err := run(&ctl); err != nil {
		if ctl != nil {
			ctl.send(labproto.Event{Kind: "failed", Error: err.Error()})
		}
		fmt.Fprintf(os.Stderr, "lab-l1: %v\n", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run(ctl **control) error {
	for _, m := range earlyMounts {
		if err := m.mount(""); err != nil {
			return err
		}
	}
	// The kernel gives init the console only if /dev/console was in the
	// initramfs; ours is empty but for files, so open it now.
	if c, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		os.Stderr = c
	}
	req, err := readRequest()
	if err != nil {
		return err
	}
	step := stepper(req.Verbose)
	tv := unix.NsecToTimeval(req.Time)
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("settimeofday: %w", err)
	}
	if err := loadModules(req.Modules); err != nil {
		return err
	}
	step("modules")
	if req.Heartbeat {
		if err := startHeartbeat(); err != nil {
			return err
		}
	}
	late := make(chan error, 1)
	go func() { late <- loadModules(req.Late) }()
	ports, err := openPorts(5 * time.Second)
	if err != nil {
		return err
	}
	*ctl = &control{port: ports[labproto.PortControl]}
	step("ports")
	if err := makeRoot(req); err != nil {
		return err
	}
	step("root")
	if err := <-late; err != nil {
		return err
	}
	step("late modules")
	if err := enterRoot(req); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	step("ready")
	status, err := runCommand(req, ports, *ctl)
	if err != nil {
		return err
	}
	if err := leaveOut(req); err != nil {
		return err
	}
	(*ctl).send(labproto.Event{Kind: "exited", Status: status})
	return nil
}

func readRequest() (*labproto.Request, error) {
	b, err := os.ReadFile(labproto.RequestPath)
	if err != nil {
		return nil, err
	}
	req := new(labproto.Request)
	if err := json.Unmarshal(b, req); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if len(req.Args) == 0 {
		return nil, fmt.Errorf("request without a command")
	}
	return req, nil
}

// uptime is seconds since the kernel's clocks started.
func uptime() float64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return float64(ts.Nano()) / 1e9
}

// stepper reports progress on the console when verbose.
func stepper(verbose bool) func(string) {
	if !verbose {
		return func(string) {}
	}
	return func(name string) { fmt.Fprintf(os.Stderr, "lab-l1: %.3f %s\n", uptime(), name) }
}

// loopbackUp sets IFF_UP on lo.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return nil
}
