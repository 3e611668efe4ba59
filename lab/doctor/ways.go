package doctor

import (
	"fmt"
	"strings"
)

// What several ways need.
var (
	needsPods       = []string{"tun-device", "tun-queues", "tun-persist", "tun-pod", "udp-socket"}
	needsPlayground = append([]string{"network-namespace", "mount-namespace", "pid-namespace", "pod-namespace", "run-dir"}, needsPods...)
)

// ways tells what the findings of a report come to.
func ways(r *Report) []Way {
	root := r.way("playground-root", "a cluster on this machine as root (middleway up, make demo, make test)", true,
		needing("tun-open", needsPlayground...)...)
	if r.rootless() {
		root.Works, root.Lacks, root.Why = false, []string{"capabilities"}, fmt.Sprintf("this is user %d; `sudo middleway doctor` finds out about root", r.UID)
	}
	rootless := r.way("playground-rootless", "the same as an ordinary user", true, needing("tun-open", needing("user-namespace", needsPlayground...)...)...)
	if !r.rootless() {
		rootless = r.way(rootless.Name, rootless.Title, true, "tun-ordinary", "user-namespace")
		if rootless.Works {
			rootless.Why = fmt.Sprintf("tried as user %d", ordinaryID)
		}
	}
	rootless.Runs = r.rootless()
	kernel := r.way("underlay-kernel", "--underlay kernel", false, "veth", "bridge")
	if !kernel.Works && r.works("veth") {
		kernel.Works, kernel.Why = true, "for two nodes; more are joined in userspace, for lack of a bridge"
	}
	return []Way{
		r.way("node", "a node of a cluster (middleway node)", true, needing("capabilities", needing("tun-open", append(needsPods, "vxlan-port", "http-port", "run-dir")...)...)...),
		root,
		rootless,
		kernel,
		r.way("underlay-userspace", "--underlay userspace", false, "tap"),
		r.way("underlay-machine", "--underlay machine", false, "udp-socket", "loopback-addresses"),
		r.way("kernel-contestant", "the kernel's bridge and VXLAN beside it (make bench, make test)", false, "veth", "bridge", "vxlan"),
		r.way("ipv6", "IPv6 for pods and between nodes", false, "ipv6-socket", "ipv6-setting", "ipv6-address"),
	}
}

func needing(first string, others ...string) []string { return append([]string{first}, others...) }

// way tells whether all of some findings work, and which do not.
func (r *Report) way(name, title string, runs bool, needs ...string) Way {
	w := Way{Name: name, Title: title, Works: true, Runs: runs, Lacks: []string{}}
	var why []string
	for _, need := range needs {
		f, _ := r.Finding(need)
		if f.State == Works {
			continue
		}
		w.Works = false
		w.Lacks = append(w.Lacks, need)
		if f.State == Missing || len(why) == 0 {
			why = append(why, fmt.Sprintf("%s: %s", f.Title, f.Detail))
		}
	}
	w.Why = strings.Join(why, "; ")
	return w
}

func (r *Report) works(name string) bool {
	f, _ := r.Finding(name)
	return f.State == Works
}
