package main

// checkScript is what -check runs in L1: one line for each thing that the
// lab promises, exit status 1 if one is missing. The KVM part is this same
// program, called with -kvm-check.
const checkScript = `
bad=0
check() { # what, command…
	local what=$1 out; shift
	if out=$("$@" 2>&1); then echo "ok   $what${out:+: $out}"; else echo "FAIL $what: $out"; bad=1; fi
}
kvm() { $LUCID_LAB_PROGRAM -kvm-check; }
controllers() { local c; for c in cpu memory pids io cpuset; do grep -qw $c /sys/fs/cgroup/cgroup.controllers || { echo "no $c"; return 1; }; done; cat /sys/fs/cgroup/cgroup.controllers; }
limit() { mkdir -p /sys/fs/cgroup/labcheck && echo 64M >/sys/fs/cgroup/labcheck/memory.max && cat /sys/fs/cgroup/labcheck/memory.max && rmdir /sys/fs/cgroup/labcheck; }
netns() { ip netns add labns && ip link add labv0 type veth peer name labv1 netns labns && ip link add labbr type bridge && ip link set labv0 master labbr &&
	ip addr add 10.213.0.1/24 dev labbr && ip link set labbr up && ip link set labv0 up &&
	ip -n labns addr add 10.213.0.2/24 dev labv1 && ip -n labns link set labv1 up && ip -n labns link set lo up && pings; }
pings() { # ip itself proves nothing about traffic: a TCP connection through the bridge does
	ip netns exec labns $LUCID_LAB_PROGRAM -tcp-check listen 10.213.0.2 & local p=$!
	$LUCID_LAB_PROGRAM -tcp-check dial 10.213.0.2 && wait $p; }
tap() { ip tuntap add labtap mode tap vnet_hdr && ip link set labtap up && ip -br link show labtap | cut -d' ' -f1; }
lo() { ip -br addr show lo | grep -q 127.0.0.1 && echo 127.0.0.1; }
overlay() { local d; d=$(mktemp -d) && mkdir $d/{l,u,w,m} && echo low >$d/l/f && mount -t overlay labchk -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w $d/m &&
	echo up >$d/m/f && [ "$(cat $d/l/f $d/u/f)" = $'low\nup' ] && umount $d/m && rm -r $d && echo "on $TMPDIR"; }
loopdev() { local d; d=$(mktemp -d) && truncate -s 16M $d/i && mkfs.ext4 -q $d/i && mkdir $d/m && mount -o loop $d/i $d/m && stat -f -c %T $d/m && umount $d/m && rm -r $d; }
space() { df -h --output=avail $TMPDIR | tail -1; }
writes() { echo x >/usr/bin/labcheck && rm /usr/bin/labcheck && echo "/ is an overlay on $(stat -f -c %T /)"; }
nft() { modprobe nf_tables && echo nf_tables; }
check "/dev/kvm" kvm
check "kvm-amd" grep -H . /sys/module/kvm_amd/parameters/npt
check "cgroup v2" controllers
check "cgroup memory.max" limit
check "loopback" lo
check "netns, veth, bridge, TCP through them" netns
check "tap" tap
check "overlay mount" overlay
check "loop device, ext4" loopdev
check "vhost-vsock" test -c /dev/vhost-vsock
check "modprobe" nft
check "root is writable" writes
check "room in TMPDIR" space
check "/dev/fd" cat <(echo 'bash can substitute processes')
check "user namespace" unshare -Ur true
exit $bad
`
