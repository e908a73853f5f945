package main

import (
	"os"
	"path/filepath"
	"testing"
)

// usageInputs are wrong numbers of arguments and wrong flags.
func usageInputs() []badInput {
	return []badInput{
		{name: "create without ID", args: "create", code: 1, want: `"create" requires exactly 1 argument(s)`},
		{name: "create two", args: "create ID b", code: 1, want: `"create" requires exactly 1 argument(s)`},
		{name: "run without ID", args: "run", code: 1, want: `"run" requires exactly 1 argument(s)`},
		{name: "start without ID", args: "start", code: 1, want: `"start" requires exactly 1 argument(s)`},
		{name: "start two", args: "start ID b", code: 1, want: `"start" requires exactly 1 argument(s)`},
		{name: "state without ID", args: "state", code: 1, want: `"state" requires exactly 1 argument(s)`},
		{name: "delete without ID", args: "delete", code: 1, want: `"delete" requires exactly 1 argument(s)`},
		{name: "kill without ID", args: "kill", code: 1, want: `"kill" requires a minimum of 1 argument(s)`},
		{name: "kill three", args: "kill ID KILL c", code: 1, want: `"kill" requires a maximum of 2 argument(s)`},
		{name: "list one", args: "list a", code: 1, want: `"list" requires exactly 0 argument(s)`},
		{name: "spec one", args: "spec a", code: 1, want: `"spec" requires exactly 0 argument(s)`},
		{name: "pause without ID", args: "pause", code: 1, want: `"pause" requires exactly 1 argument(s)`},
		{name: "resume two", args: "resume a b", code: 1, want: `"resume" requires exactly 1 argument(s)`},
		{name: "ps without ID", args: "ps", code: 1, want: `"ps" requires a minimum of 1 argument(s)`},
		{name: "events without ID", args: "events", code: 1, want: `"events" requires exactly 1 argument(s)`},
		{name: "update without ID", args: "update", code: 1, want: `"update" requires exactly 1 argument(s)`},
		{name: "exec without ID", args: "exec", code: 1, want: `"exec" requires a minimum of 1 argument(s)`},
		{name: "features one", args: "features a", code: 1, want: `"features" requires exactly 0 argument(s)`},
		{name: "unknown flag", args: "create --nosuch ID", code: 1, want: "flag provided but not defined: -nosuch"},
		{name: "unknown global flag", args: "--nosuch list", code: 1, want: "flag provided but not defined: -nosuch"},
		{name: "unknown command", args: "nosuch", code: 1, want: `no such command: "nosuch"`, runc: other, why: "its command line library says that there is no help, with status 3"},
		{name: "flag without value", args: "create --bundle", code: 1, want: "flag needs an argument: --bundle", runc: alike},
		{name: "rootless", args: "--rootless perhaps list", code: 1, want: "--rootless", runc: other, why: "only its commands that need to know refuse it"},
		{name: "log format", args: "--log-format xml list", code: 1, want: "invalid log-format: xml"},
		{name: "log in no directory", args: "--log /no/such/log list", code: 1, want: "open /no/such/log: no such file or directory"},
		{name: "root /", args: "--root / list", code: 1, want: "option --root argument should not be set to /", runc: other, why: "only newer runc refuses it"},
		{name: "list format", args: "list -f xml", code: 1, want: "invalid format option"},
		{name: "ps format", args: "ps -f xml ID", code: 1, want: "invalid format option", state: "running"},
		{name: "events interval", args: "events --interval 0s ID", code: 1, want: "duration interval must be greater than 0", state: "running"},
		{name: "events interval word", args: "events --interval soon ID", code: 1, want: `invalid value "soon" for flag -interval`},
		{name: "preserve-fds word", args: "create --preserve-fds x ID", code: 1, want: `invalid value "x" for flag -preserve-fds`},
		{name: "exec group word", args: "exec -g x ID true", code: 1, want: `invalid value "x" for flag -g`},
		{name: "unknown signal", args: "kill ID SIGNONE", code: 1, want: `unknown signal "SIGNONE"`, state: "running"},
		{name: "signal too high", args: "kill ID 65", code: 1, want: `unknown signal "65"`, state: "running", runc: alike},
		{name: "transport", args: "--transport pigeon list", code: 1, want: "neither vsock nor serial", runc: none},
	}
}

// cgroupInputs are about who makes the cgroup.
func cgroupInputs() []badInput {
	cases := []badInput{
		{name: "cgroup manager", args: "--cgroup-manager docker list", code: 1, want: `--cgroup-manager: "docker" is neither cgroupfs nor systemd`, runc: none},
		{name: "cgroup manager disabled", args: "--cgroup-manager disabled list", code: 1, want: "disabled is not supported", runc: none},
		{name: "no such config", args: "create --config other.json ID", code: 1, want: "other.json: no such file or directory", runc: none},
		{name: "broken config", args: "create --config FILE ID", file: "{", code: 1, want: "file: line 1: unexpected end of JSON input", runc: none},
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return cases // this host has one
	}
	return append(
		cases,
		badInput{name: "no systemd", args: "--systemd-cgroup create ID", code: 1, want: "systemd not running on this host, cannot use systemd cgroups manager"},
		badInput{name: "no systemd for crun's flag", args: "--cgroup-manager systemd create --kernel FILE --initramfs FILE ID", code: 1, want: "systemd not running on this host", runc: none},
	)
}

// idInputs are IDs that are none, or that nobody has.
func idInputs() []badInput {
	return []badInput{
		{name: "ID with slash", args: "create a/b", code: 1, want: "invalid container ID format"},
		{name: "ID of dots", args: "create ..", code: 1, want: "invalid container ID format"},
		{name: "ID of a dot", args: "create .", code: 1, want: "invalid container ID format"},
		{name: "ID with a letter of no ASCII", args: "create é", code: 1, want: "invalid container ID format"},
		{name: "ID with a colon", args: "create a:b", code: 1, want: "invalid container ID format"},
		{name: "empty ID", args: "create EMPTY", code: 1, want: "container id cannot be empty"},
		{name: "long ID", args: "create LONG", code: 1, want: "invalid container ID format", runc: alike},
		{name: "state of a bad ID", args: "state ../x", code: 1, want: "invalid container ID format"},
		{name: "delete of a bad ID", args: "delete -f a/b", code: 1, want: "invalid container ID format"},
		{name: "state of nothing", args: "state ID", code: 1, want: "container does not exist"},
		{name: "start of nothing", args: "start ID", code: 1, want: "container does not exist"},
		{name: "kill of nothing", args: "kill ID KILL", code: 1, want: "container does not exist"},
		{name: "delete of nothing", args: "delete ID", code: 1, want: "container does not exist"},
		{name: "exec in nothing", args: "exec ID true", code: 255, want: "container does not exist"},
		{name: "pause of nothing", args: "pause ID", code: 1, want: "container does not exist"},
		{name: "resume of nothing", args: "resume ID", code: 1, want: "container does not exist"},
		{name: "ps of nothing", args: "ps ID", code: 1, want: "container does not exist"},
		{name: "events of nothing", args: "events ID", code: 1, want: "container does not exist"},
		{name: "update of nothing", args: "update ID", code: 1, want: "container does not exist"},
	}
}

// configInputs are a config.json that is no good.
func configInputs() []badInput {
	return []badInput{
		{name: "no bundle", args: "create -b /no/such ID", code: 1, want: "/no/such: no such file or directory"},
		{name: "no config.json", args: "create -b / ID", code: 1, want: "JSON specification file config.json not found"},
		{name: "bundle is a file", args: "create -b FILE ID", code: 1, want: "not a directory"},
		{name: "empty config.json", args: "create ID", config: " ", code: 1, want: "config.json: line 1: unexpected end of JSON input", runc: alike},
		{name: "null", args: "create ID", config: "null", code: 1, want: "config cannot be null", runc: other, why: "runc 1.1 panics"},
		{name: "a list", args: "create ID", config: "[]", code: 1, want: "config.json: line 1: a JSON array does not fit here", runc: alike},
		{name: "broken", args: "create ID", config: "{\n,", code: 1, want: "config.json: line 2: invalid character ','", runc: alike},
		{name: "no object", args: "create ID", config: "{}", code: 1, want: "ociVersion: must not be empty", runc: alike},
		{name: "no process", args: "create ID", config: `{"ociVersion": "1.0.0", "root": {"path": "rootfs"}}`, code: 1, want: "process: must be set", runc: alike},
		{name: "no root", args: "create ID", config: `{"ociVersion": "1.0.0", "process": {"args": ["/sleeper"], "cwd": "/"}}`, code: 1, want: "root: must be set", runc: alike},
		{name: "version", args: "create ID", from: `"ociVersion": "1.`, to: `"ociVersion": "2.`, code: 1, want: "ociVersion: 2.", runc: other, why: "runc 1.1 does not look"},
		{name: "no version", args: "create ID", from: `"ociVersion": "1.`, to: `"ociVersion": "x.`, code: 1, want: "is not of the form MAJOR.MINOR.PATCH", runc: other, why: "runc 1.1 does not look"},
		{name: "args a string", args: "create ID", from: `"process": {`, to: `"process": {"args": "sh", "a": [], "x": {}, "y": `, code: 1, want: "config.json", runc: alike},
		{name: "no args", args: "create ID", from: `"/sleeper"`, code: 1, want: "args"},
		{name: "cwd a number", args: "create ID", from: `"cwd": "/"`, to: `"cwd": 1`, code: 1, want: "process.cwd: a JSON number does not fit here", runc: alike},
		{name: "cwd relative", args: "create ID", from: `"cwd": "/"`, to: `"cwd": "tmp"`, code: 1, want: `process.cwd: "tmp" is not an absolute path`, runc: alike},
		{name: "cwd empty", args: "create ID", from: `"cwd": "/"`, to: `"cwd": ""`, code: 1, want: "process.cwd: must not be empty", runc: alike},
		{name: "terminal a word", args: "create ID", from: `"terminal": false`, to: `"terminal": "no"`, code: 1, want: "process.terminal: a JSON string does not fit here", runc: alike},
		{name: "uid negative", args: "create ID", from: `"uid": 0`, to: `"uid": -1`, code: 1, want: "process.user.uid: a JSON number -1 does not fit here", runc: alike},
		{name: "uid a name", args: "create ID", from: `"uid": 0`, to: `"uid": "root"`, code: 1, want: "process.user.uid: a JSON string does not fit here", runc: alike},
		{name: "env a number", args: "create ID", from: `"env": [`, to: `"env": [1, `, code: 1, want: "process.env: a JSON number does not fit here", runc: alike},
		{name: "rlimit unknown", args: "create ID", from: "RLIMIT_NOFILE", to: "RLIMIT_NOPE", code: 1, want: `process.rlimits[0].type: "RLIMIT_NOPE" is not a resource limit`, runc: alike},
		{name: "rlimit soft above hard", args: "create ID", from: `"soft": 1024`, to: `"soft": 4096`, code: 1, want: "process.rlimits[0]: soft 4096 is above hard 1024", runc: alike},
		{name: "mounts an object", args: "create ID", from: `"mounts": [`, to: `"mounts": {}, "x": [`, code: 1, want: "mounts: a JSON object does not fit here", runc: alike},
		{name: "bind of nothing", args: "create ID", from: `"mounts": [`, to: `"mounts": [{"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]},`, code: 1, want: "/no/such: no such file or directory"},
		{name: "hook relative", args: "create ID", from: `"mounts": [`, to: `"hooks": {"prestart": [{"path": "hook"}]}, "mounts": [`, code: 1, want: `hooks.prestart[0].path: "hook" is not an absolute path`, runc: alike},
		{name: "hook missing", args: "create ID", from: `"mounts": [`, to: `"hooks": {"prestart": [{"path": "/no/hook"}]}, "mounts": [`, code: 1, want: "/no/hook: no such file or directory"},
		{name: "namespace unknown", args: "create ID", from: `"namespaces": [`, to: `"namespaces": [{"type": "disk"},`, code: 1, want: `"disk"`},
		{name: "namespace twice", args: "create ID", from: `"namespaces": [`, to: `"namespaces": [{"type": "pid"},`, code: 1, want: "pid"},
		{name: "namespace path missing", args: "create ID", from: `"type": "network"`, to: `"type": "network", "path": "/no/net"`, code: 1, want: "/no/net: no such file or directory"},
		{name: "mappings without namespace", args: "create ID", from: `"namespaces": [`, to: `"uidMappings": [{"size": 1}], "namespaces": [`, code: 1, want: "linux.uidMappings: needs a user namespace", runc: other, why: "runc does not look"},
		{name: "user namespace without mappings", args: "create ID", from: `"namespaces": [`, to: `"namespaces": [{"type": "user"},`, code: 1, want: "linux.uidMappings: must not be empty with a user namespace", runc: alike},
		{name: "rootfs missing", args: "create ID", from: `"rootfs"`, to: `"nofs"`, code: 1, want: "nofs: no such file or directory"},
		{name: "rootfs a file", args: "create ID", from: `"rootfs"`, to: `"file"`, code: 1, want: "is not a directory", runc: alike},
		{name: "rootfs empty", args: "create ID", from: `"rootfs"`, to: `""`, code: 1, want: "root.path: must not be empty", runc: alike},
		{name: "seccomp action", args: "create ID", from: `"namespaces": [`, to: `"seccomp": {"defaultAction": "SCMP_ACT_X"}, "namespaces": [`, code: 1, want: `SCMP_ACT_X`},
		{name: "seccomp operator", args: "create ID", from: `"namespaces": [`, to: `"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"op": "EQ"}]}]}, "namespaces": [`, code: 1, want: `EQ`},
		{name: "seccomp architecture", args: "create ID", from: `"namespaces": [`, to: `"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["VAX"]}, "namespaces": [`, code: 1, want: `VAX`},
		{name: "memory limit a word", args: "create ID", from: `"resources": {`, to: `"resources": {"memory": {"limit": "much"}, `, code: 1, want: "linux.resources.memory.limit: a JSON string does not fit here", runc: alike},
		{name: "unified with slash", args: "create ID", from: `"resources": {`, to: `"resources": {"unified": {"../x": "1"}, `, code: 1, want: `linux.resources.unified: "../x" is not a file name`, runc: alike},
		{name: "propagation", args: "create ID", from: `"namespaces": [`, to: `"rootfsPropagation": "loud", "namespaces": [`, code: 1, want: `linux.rootfsPropagation: "loud" is not a propagation`, runc: alike},
		{name: "personality", args: "create ID", from: `"namespaces": [`, to: `"personality": {"domain": "BSD"}, "namespaces": [`, code: 1, want: `linux.personality.domain: "BSD" is neither`, runc: other, why: "runc 1.1 does not know it"},
		{name: "scheduler", args: "create ID", from: `"cwd"`, to: `"scheduler": {"policy": "FAST"}, "cwd"`, code: 1, want: `process.scheduler.policy: "FAST" is not a policy`, runc: other, why: "runc 1.1 does not know it"},
		{name: "time offset", args: "create ID", from: `"namespaces": [`, to: `"timeOffsets": {"monotonic": {"secs": 1}}, "namespaces": [`, code: 1, want: "linux.timeOffsets: needs a time namespace", runc: other, why: "runc 1.1 does not know it"},
		{name: "device type", args: "create ID", from: `"namespaces": [`, to: `"devices": [{"path": "/dev/x", "type": "z"}], "namespaces": [`, code: 1, want: `linux.devices[0].type: "z"`, runc: alike},
		{name: "for Windows", args: "create ID", from: `"linux": {`, to: `"windows": {"layerFolders": []}, "linux": {`, code: 1, want: "made for another platform", runc: other, why: "runc does not look"},
	}
}

// fileInputs are files, terminals and sockets.
func fileInputs() []badInput {
	spoil := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, bundle string) {
			if err := os.WriteFile(filepath.Join(bundle, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []badInput{
		{name: "spec twice", args: "spec", code: 1, want: "File config.json exists. Remove it first"},
		{name: "spec in no directory", args: "spec -b /no/such", code: 1, want: "/no/such"},
		{name: "terminal without socket", args: "create ID", from: `"terminal": false`, to: `"terminal": true`, code: 1, want: "cannot allocate tty if lucid will detach without setting console socket"},
		{name: "socket without terminal", args: "create --console-socket /x ID", code: 1, want: "cannot use console socket if lucid will not detach or allocate tty"},
		{name: "no listener at the socket", args: "create --console-socket FILE ID", from: `"terminal": false`, to: `"terminal": true`, code: 1, want: "connect: connection refused"},
		{name: "pid file in no directory", args: "create --pid-file /no/such/pid ID", code: 1, want: "/no/such/.pid: no such file or directory"},
		{name: "resources missing", args: "update -r /no/such ID", state: "running", code: 1, want: "open /no/such: no such file or directory"},
		{name: "resources broken", args: "update -r FILE ID", state: "running", file: "{", code: 1, want: "resources: unexpected end of JSON input", runc: alike},
		{name: "resources of another type", args: "update -r FILE ID", state: "running", file: `{"pids": 1}`, code: 1, want: "cannot unmarshal number"},
		{name: "memory a word", args: "update --memory much ID", state: "running", code: 1, want: "invalid value for memory"},
		{name: "pids a word", args: "update --pids-limit 1k ID", state: "running", code: 1, want: "1k"},
		{name: "quota a word", args: "update --cpu-quota x ID", state: "running", code: 1, want: "invalid value for cpu-quota"},
		{name: "process missing", args: "exec -p /no/such ID", state: "running", code: 255, want: "open /no/such: no such file or directory"},
		{name: "process broken", args: "exec -p FILE ID", state: "running", file: "{", code: 255, want: "/file: unexpected end of JSON input", runc: alike},
		{name: "process without args", args: "exec -p FILE ID", state: "running", file: `{"cwd": "/"}`, code: 255, want: "/file: process.args: must not be empty", runc: alike},
		{name: "process with a relative cwd", args: "exec -p FILE ID", state: "running", file: `{"cwd": "x", "args": ["y"]}`, code: 255, want: `/file: process.cwd: "x" is not an absolute path`, runc: alike},
		{name: "exec without a command", args: "exec ID", state: "running", code: 255, want: "process args cannot be empty"},
		{name: "exec user by name", args: "exec --user root ID true", state: "running", code: 255, want: "parsing root as int for uid failed"},
		{name: "exec group by name", args: "exec --user 1:wheel ID true", state: "running", code: 255, want: "parsing wheel as int for gid failed"},
		{name: "exec negative group", args: "exec --additional-gids=-1 ID true", state: "running", code: 255, want: "additional-gids must be a positive number"},
		{name: "exec detached terminal", args: "exec -d -t ID true", state: "running", code: 255, want: "cannot allocate tty if lucid will detach without setting console socket"},
		{name: "exec socket without terminal", args: "exec -d --console-socket /x ID true", state: "running", code: 255, want: "cannot use console socket if lucid will not detach or allocate tty"},
		{name: "exec no such program", args: "exec ID nosuch", state: "running", code: 255, want: `exec: "nosuch": executable file not found in $PATH`},
		{name: "kernel missing", args: "create --kernel /no/kernel ID", code: 1, want: "--kernel: open /no/kernel: no such file or directory", runc: none},
		{name: "kernel a directory", args: "create --kernel /tmp ID", code: 1, want: "/tmp: not a regular file", runc: none},
		{name: "a record that is spoilt", args: "state spoilt", prepare: func(*testing.T, string) {}, code: 1, want: "container does not exist"},
		{name: "config.json a directory", args: "create ID", runc: alike, prepare: func(t *testing.T, bundle string) {
			path := filepath.Join(bundle, "config.json")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}, code: 1, want: "config.json: not a regular file"},
		{name: "config.json of zeros", args: "create ID", prepare: spoil("config.json", "\x00\x00"), code: 1, want: "invalid character"},
	}
}

// stateInputs are commands that do not fit the state.
func stateInputs() []badInput {
	return []badInput{
		{name: "create twice", args: "create ID", state: "created", code: 1, want: "container with given ID already exists"},
		{name: "start twice", args: "start ID", state: "running", code: 1, want: "cannot start an already running container"},
		{name: "start stopped", args: "start ID", state: "stopped", code: 1, want: "cannot start a container that has stopped"},
		{name: "delete running", args: "delete ID", state: "running", code: 1, want: "that is not stopped: running"},
		{name: "delete paused", args: "delete ID", state: "paused", code: 1, want: "that is not stopped: paused"},
		{name: "kill stopped", args: "kill ID KILL", state: "stopped", code: 1, want: "container not running"},
		{name: "kill all stopped", args: "kill --all ID KILL", state: "stopped", code: 0},
		{name: "exec in stopped", args: "exec ID true", state: "stopped", code: 255, want: "cannot exec in a stopped container"},
		{name: "exec in paused", args: "exec ID true", state: "paused", code: 255, want: "cannot exec in a paused container"},
		{name: "exec in created", args: "exec ID true", state: "created", code: 255, want: "cannot exec in a container that has not been started", runc: alike},
		{name: "pause stopped", args: "pause ID", state: "stopped", code: 1, want: "container not running"},
		{name: "pause paused", args: "pause ID", state: "paused", code: 1, want: "container not running"},
		{name: "resume running", args: "resume ID", state: "running", code: 1, want: "container not paused"},
		{name: "resume stopped", args: "resume ID", state: "stopped", code: 1, want: "container not paused"},
		{name: "start paused", args: "start ID", state: "paused", code: 1, want: "cannot start"},
		{name: "events of stopped", args: "events --stats ID", state: "stopped", code: 1, want: "is not running"},
		{name: "update stopped", args: "update --pids-limit 5 ID", state: "stopped", code: 1, want: "container not running"},
		{name: "ps stopped", args: "ps ID", state: "stopped", code: 1, want: "container not running", runc: other, why: "runc prints an empty table"},
	}
}
