//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestRealUserland(t *testing.T) {
	out := shell(t, `
		echo "bash $BASH_VERSION"
		perl -e 'print "perl ", 6*7, "\n"'
		dpkg -l | grep -c ^ii`)
	wantContains(t, out, "bash 5.", "perl 42\n")
}

func TestPrograms(t *testing.T) {
	out := shell(t, `
		apt-get --version
		python3 -c 'import os, sys; print("python", sys.version_info[0], os.cpu_count())'
		dpkg -l | tail -n +6 | wc -l
		ps -ef`)
	wantContains(t, out, "apt 2.6", "python 3 1", "ps -ef")
}

// TestFindCounts: the container sees as many files as the host does, no more and no fewer.
func TestFindCounts(t *testing.T) {
	b := newBundle(t, "sh", "-c", "find / -xdev | wc -l")
	// Mount points that the container's spec asks for may be made in the root file system; they exist on both sides
	// once it has started, so the host counts afterwards.
	r := b.run(nil)
	r.wantCode(t, 0)
	// In the container /dev, /proc and /sys are file systems of their own: what lies below in the root is hidden.
	sh := `cd "$0"; find . -xdev \( -path ./dev -o -path ./proc -o -path ./sys \) -prune -print -o -print | wc -l`
	out, err := exec.Command("sh", "-c", sh, b.root).Output()
	must(t, err)
	guest, err := strconv.Atoi(strings.TrimSpace(r.stdout))
	must(t, err)
	host, err := strconv.Atoi(strings.TrimSpace(string(out)))
	must(t, err)
	if guest != host {
		t.Errorf("find / -xdev counts %d in the container, %d on the host", guest, host)
	}
}

// TestTarRoundTrip copies programs and their hard links by tar.
func TestTarRoundTrip(t *testing.T) { tarRoundTrip(t, "/usr/lib/git-core") }

// TestTarUsr copies all of /usr: 10,000 files, which takes some ten minutes in the lab.
func TestTarUsr(t *testing.T) { tarRoundTrip(t, "/usr") }

func tarRoundTrip(t *testing.T, dir string) {
	t.Helper()
	out := shell(t, `
		mkdir /copy; tar -C `+dir+` -cf - . | tar -C /copy -xf -
		for d in `+dir+` /copy; do (cd $d; find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); done
		for d in `+dir+` /copy; do (cd $d; find . -printf '%p %y %m %U %G %s %l\n' | grep -v ' d ' | sort | sha256sum); done`)
	l := strings.Split(strings.TrimSpace(out), "\n")
	if len(l) != 4 || l[0] != l[1] || l[2] != l[3] {
		t.Errorf("contents and attributes before and after:\n%s", out)
	}
}

func TestGit(t *testing.T) {
	out := shell(t, `
		export HOME=/root GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
		git init -q /repo; cd /repo
		for i in $(seq 1 5); do echo $i >f$i; seq 1 $((i*1000)) >many; git add .; git commit -qm "$i"; done
		git repack -qad; git fsck --full --strict 2>&1; git status --short; git log --oneline | wc -l`)
	if got := strings.TrimSpace(out); got != "5" {
		t.Errorf("git: %q, want 5 commits and no complaint", got)
	}
}

// TestSqliteWAL: two writers on one WAL database, which needs shared mappings and locks to be right.
func TestSqliteWAL(t *testing.T) {
	out := shell(t, `
		cd /root; sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(w, n);' >mode; cat mode
		w() { for i in $(seq 1 15); do sqlite3 -cmd '.timeout 60000' db "INSERT INTO t VALUES($1,$i);"; done; }
		w 1 & w 2 & wait
		sqlite3 db 'SELECT w, count(*), sum(n) FROM t GROUP BY w; PRAGMA integrity_check;'`)
	if want := "wal\n1|15|120\n2|15|120\nok\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// TestDpkgInstall installs a real package that the run program put beside the binaries.
func TestDpkgInstall(t *testing.T) {
	debs, err := filepath.Glob(filepath.Join(world.bin, "hello_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("one .deb in %s is needed: %v %v", world.bin, debs, err)
	}
	b := newBundle(t, "bash", "-ec", "dpkg -i /package.deb; dpkg -s hello | grep ^Status; hello")
	data, err := os.ReadFile(debs[0])
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.root, "package.deb"), data, 0o644))
	r := b.run(nil)
	r.wantCode(t, 0)
	wantContains(t, r.stdout, "Status: install ok installed", "Hello, world!")
}

// TestRealHostSees: what a container wrote is on the host, with owner and mode, once it has ended.
func TestRealHostSees(t *testing.T) {
	b := newBundle(t, "bash", "-ec", `
		echo data >/f; chown 1234:4321 /f; chmod 4751 /f; mkdir -m 2770 /d; ln -s f /l; mkfifo /p
		echo more >>/f; chmod 4751 /f
		perl -e 'open F, "+<", "/m" or open F, "+>", "/m"; truncate F, 8192; seek F, 4096, 0; print F "x"x10; close F'`)
	b.run(nil).wantCode(t, 0)
	stat := func(name string) *syscall.Stat_t {
		var st syscall.Stat_t
		must(t, syscall.Lstat(filepath.Join(b.root, name), &st))
		return &st
	}
	if st := stat("f"); st.Uid != 1234 || st.Gid != 4321 || st.Mode != syscall.S_IFREG|0o4751 || st.Size != 10 {
		t.Errorf("f: uid %d gid %d mode %o size %d", st.Uid, st.Gid, st.Mode, st.Size)
	}
	if st := stat("d"); st.Mode != syscall.S_IFDIR|0o2770 || st.Uid != 0 {
		t.Errorf("d: mode %o uid %d", st.Mode, st.Uid)
	}
	if st := stat("p"); st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		t.Errorf("p: mode %o", st.Mode)
	}
	if l, err := os.Readlink(filepath.Join(b.root, "l")); l != "f" {
		t.Errorf("l -> %q, %v", l, err)
	}
	data, err := os.ReadFile(filepath.Join(b.root, "f"))
	if string(data) != "data\nmore\n" {
		t.Errorf("f holds %q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(b.root, "m")); len(data) != 8192 || string(data[4096:4106]) != "xxxxxxxxxx" {
		t.Errorf("m: %d bytes, %v", len(data), err)
	}
}

func TestRealReadOnlyRoot(t *testing.T) {
	b := newBundle(t, "sh", "-c", `
		touch /x; echo >>/etc/passwd; rm /etc/passwd; mkdir /y; chmod 777 /etc; mv /etc /etc2; ln /etc/passwd /p
		mount -o remount,rw / 2>/dev/null && touch /z
		touch /dev/shm/ok && echo tmpfs-ok`)
	b.spec.Root.Readonly = true
	r := b.run(nil)
	r.wantCode(t, 0)
	r.wantStdout(t, "tmpfs-ok\n")
	if n := strings.Count(r.stderr, "Read-only file system"); n < 7 {
		t.Errorf("%d refusals, want 7:\n%s", n, r.stderr)
	}
}

// TestUnlinkedOpen: the class of bug that Clear Containers' users met first.
func TestUnlinkedOpen(t *testing.T) {
	out := shell(t, `
		exec 3<>/tmp/f; rm /tmp/f; echo gone >&3
		perl -e 'open F, "+<&=", 3; truncate F, 3; my @s = stat F; print "size $s[7] links $s[3]\n"; seek F, 0, 0; print scalar <F>, "\n"; chmod 0600, *F or print "chmod: $!\n"'
		mkdir /tmp/dir; exec 4>/tmp/dir/f; mv /tmp/dir /tmp/dir2; echo moved >&4; cat /tmp/dir2/f`)
	if want := "size 3 links 0\ngon\nmoved\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// TestRealAVX: vector registers of two processes stay apart across context switches, on each back-end.
func TestRealAVX(t *testing.T) {
	b := newBundle(t, "/avx")
	b.put("avx")
	r := b.run(nil)
	r.wantCode(t, 0)
	r.wantStdout(t, "120 checks, 0 bad\n")
}
