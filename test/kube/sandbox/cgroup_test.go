package sandbox

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []Hierarchy
	}{
		{name: "none", text: "proc /proc proc rw 0 0\n"},
		{
			name: "version 1, and an empty version 2 beside it",
			text: `tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0
`,
			want: []Hierarchy{
				{Dir: "/sys/fs/cgroup/systemd", Version: 1, Options: "none,name=systemd"},
				{Dir: "/sys/fs/cgroup/cpu,cpuacct", Version: 1, Options: "cpu,cpuacct"},
			},
		},
		{
			name: "version 2",
			text: "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0\n",
			want: []Hierarchy{{Dir: "/sys/fs/cgroup", Version: 2}},
		},
		{name: "elsewhere", text: "cgroup2 /run/somewhere cgroup2 rw 0 0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, parseMounts(c.text)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
