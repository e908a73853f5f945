package kernel

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestMerge(t *testing.T) {
	fsys := fstest.MapFS{
		"b.fragment": {Data: []byte("CONFIG_B=8   # eight\n")},
		"a.fragment": {Data: []byte("# about a\n\nCONFIG_A=y\t# why: #1\nCONFIG_NAME=\"x y\"  # text\nCONFIG_OFF=n # no\nCONFIG_HEX=0x1f # hex\n")},
		"README":     {Data: []byte("not a fragment")},
	}
	got, err := Merge(fsys)
	if err != nil {
		t.Fatal(err)
	}
	want := []Option{
		{"CONFIG_A", "y", "why: #1", "a.fragment:3"},
		{"CONFIG_NAME", `"x y"`, "text", "a.fragment:4"},
		{"CONFIG_OFF", "n", "no", "a.fragment:5"},
		{"CONFIG_HEX", "0x1f", "hex", "a.fragment:6"},
		{"CONFIG_B", "8", "eight", "b.fragment:1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	text := "CONFIG_A=y\nCONFIG_NAME=\"x y\"\n# CONFIG_OFF is not set\nCONFIG_HEX=0x1f\nCONFIG_B=8\n"
	if diff := cmp.Diff(text, string(render(got))); diff != "" {
		t.Errorf("rendered (-want +got):\n%s", diff)
	}
}

func TestMergeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		want string // in the error
	}{
		{"no reason", "CONFIG_A=y\n", "a.fragment:1"},
		{"empty reason", "CONFIG_A=y  # \n", "a.fragment:1"},
		{"module", "CONFIG_A=m  # why\n", "a.fragment:1"},
		{"no prefix", "A=y  # why\n", "a.fragment:1"},
		{"kconfig's own n", "x\n# CONFIG_A is not set\n", "a.fragment:1"},
		{"twice", "CONFIG_A=y  # why\n\nCONFIG_A=y  # why\n", "a.fragment:3: CONFIG_A is already set at a.fragment:1"},
		{"second of two", "CONFIG_A=1  # why\nbad\nworse\n", "a.fragment:3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Merge(fstest.MapFS{"a.fragment": {Data: []byte(tt.text)}})
			if !errors.Is(err, ErrFragment) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Merge: %v, want ErrFragment with %q", err, tt.want)
			}
		})
	}
	if _, err := Merge(fstest.MapFS{}); !errors.Is(err, ErrFragment) {
		t.Errorf("Merge of nothing: %v, want ErrFragment", err)
	}
}

func TestOverride(t *testing.T) {
	base := []Option{{Name: "CONFIG_A", Value: "y"}, {Name: "CONFIG_B", Value: "y"}}
	more := []Option{{Name: "CONFIG_C", Value: "y"}, {Name: "CONFIG_A", Value: "n"}}
	want := []Option{{Name: "CONFIG_A", Value: "n"}, {Name: "CONFIG_B", Value: "y"}, {Name: "CONFIG_C", Value: "y"}}
	if diff := cmp.Diff(want, Override(base, more)); diff != "" {
		t.Errorf("Override (-want +got):\n%s", diff)
	}
}

func TestVerify(t *testing.T) {
	config := "# comment\nCONFIG_A=y\n# CONFIG_OFF is not set\nCONFIG_N=8\nCONFIG_S=\"a=b\"\nCONFIG_SEL=y\n"
	for _, tt := range []struct {
		option Option
		bad    bool
	}{
		{Option{Name: "CONFIG_A", Value: "y"}, false},
		{Option{Name: "CONFIG_OFF", Value: "n"}, false},
		{Option{Name: "CONFIG_GONE", Value: "n"}, false},
		{Option{Name: "CONFIG_N", Value: "8"}, false},
		{Option{Name: "CONFIG_S", Value: `"a=b"`}, false},
		{Option{Name: "CONFIG_OFF", Value: "y"}, true},
		{Option{Name: "CONFIG_GONE", Value: "y"}, true},
		{Option{Name: "CONFIG_N", Value: "16"}, true},
		{Option{Name: "CONFIG_SEL", Value: "n"}, true},
		{Option{Name: "CONFIG_SE", Value: "y"}, true}, // a prefix is another option
	} {
		bad := Verify([]byte(config), []Option{tt.option})
		if (len(bad) == 1) != tt.bad {
			t.Errorf("Verify %s=%s: %q, want a complaint: %v", tt.option.Name, tt.option.Value, bad, tt.bad)
		}
		if tt.bad && !strings.Contains(strings.Join(bad, ""), tt.option.Name) {
			t.Errorf("%q does not name %s", bad, tt.option.Name)
		}
	}
}

// What a sandbox cannot do without, lest a fragment loses it.
func TestFragmentsHaveTheContract(t *testing.T) {
	options, err := Fragments()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, o := range options {
		have[o.Name] = o.Value
	}
	for _, name := range []string{
		"PVH", "KVM_GUEST", "SMP", "X86_MPPARSE", "VIRTIO_MMIO_CMDLINE_DEVICES", "VIRTIO_CONSOLE",
		"NET_9P_VIRTIO", "9P_FS_POSIX_ACL", "VIRTIO_VSOCKETS", "HW_RANDOM_VIRTIO", "VIRTIO_NET", "OVERLAY_FS", "TMPFS",
		"USER_NS", "PID_NS", "NET_NS", "IPC_NS", "UTS_NS", "TIME_NS", "CGROUPS", "MEMCG", "CFS_BANDWIDTH", "CGROUP_PIDS",
		"CPUSETS", "SECCOMP_FILTER", "POSIX_MQUEUE", "SYSVIPC", "UNIX98_PTYS", "FUTEX", "EPOLL", "BLK_DEV_INITRD",
	} {
		if have["CONFIG_"+name] != "y" {
			t.Errorf("CONFIG_%s is %q, want y", name, have["CONFIG_"+name])
		}
	}
	if have["CONFIG_NR_CPUS"] != "8" {
		t.Errorf("CONFIG_NR_CPUS is %q, want 8", have["CONFIG_NR_CPUS"])
	}
}
