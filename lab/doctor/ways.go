package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// What the ways of running need, by the names of findings.
var (
	needsPods = []string{"tun-open", "tun-device", "tun-queues", "tun-persist", "tun-pod", "udp-socket", "run-dir"}
	needsNode = slices.Concat([]string{"capabilities"}, needsPods, []string{"vxlan-port", "http-port"})
	needsLab  = slices.Concat(needsPods,
		[]string{"network-namespace", "mount-namespace", "pid-namespace", "uts-namespace", "pod-namespace", "mounts", procFD})
)

// ways tells what the findings of a report come to.
func ways(r *Report) []Way {
	return []Way{
		r.way(Way{Name: "node", Title: "a node of a cluster (middleway node)", Runs: true}, needsNode...),
		playgroundAsRoot(r),
		playgroundRootless(r),
		underlayKernel(r),
		r.way(Way{Name: "underlay-userspace", Title: "nodes joined in userspace (--underlay userspace)"}, "tap"),
		r.way(Way{Name: "underlay-machine", Title: "nodes joined by loopback (--underlay machine)"}, "udp-socket", "loopback-addresses"),
		r.way(Way{Name: "kernel-contestant", Title: "the kernel's network beside it (make bench, make test)"}, "veth", "bridge", "vxlan"),
		r.way(Way{Name: "ipv6", Title: "IPv6"}, "ipv6-socket", "ipv6-setting", "ipv6-address"),
	}
}

func playgroundAsRoot(r *Report) Way {
	w := Way{Name: "playground-root", Title: "a cluster on this machine as root (middleway up, make demo, make test)", Runs: true}
	switch {
	case r.UID == 0 && !r.Capable:
		return r.way(w, "capabilities")
	case r.rootless():
		w.Lacks, w.Why = []string{"capabilities"}, fmt.Sprintf("not tried: this is user %d; `sudo middleway doctor` tries it", r.UID)
		return w
	}
	needs := needsLab
	if !r.works("veth") { // then userspace joins the nodes
		needs = append(slices.Clone(needs), "tap")
	}
	return r.way(w, needs...)
}

func playgroundRootless(r *Report) Way {
	w := Way{Name: "playground-rootless", Title: "a cluster on this machine as an ordinary user", Runs: r.rootless()}
	if r.rootless() {
		return r.way(w, slices.Concat([]string{"user-namespace"}, needsLab, []string{"loopback-addresses"})...)
	}
	w = r.way(w, "tun-ordinary", "user-namespace", "loopback-addresses")
	if w.Works {
		w.Why = fmt.Sprintf("tried as user %d", ordinaryID)
	}
	return w
}

func underlayKernel(r *Report) Way {
	w := r.way(Way{Name: "underlay-kernel", Title: "nodes joined by the kernel (--underlay kernel)"}, "veth", "bridge")
	if !w.Works && r.works("veth") {
		w.Works, w.Why = true, "two nodes; more are joined in userspace, for lack of a bridge"
	}
	return w
}

// way completes a way: it works if all that it needs does. Of what could not be tried for lack of something else, only that is
// said.
func (r *Report) way(w Way, needs ...string) Way {
	w.Works, w.Lacks = true, []string{}
	var missing, unknown []string
	for _, need := range needs {
		f, _ := r.Finding(need)
		why := f.Title + ": " + f.Detail
		switch f.State {
		case Works:
			continue
		case Missing:
			missing = append(missing, why)
		case Unknown:
			unknown = append(unknown, why)
		}
		w.Works, w.Lacks = false, append(w.Lacks, need)
	}
	if missing == nil {
		missing = unknown
	}
	w.Why = strings.Join(missing, "; ")
	return w
}

func (r *Report) works(name string) bool {
	f, _ := r.Finding(name)
	return f.State == Works
}
