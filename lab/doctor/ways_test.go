package doctor

import (
	"slices"
	"strings"
	"testing"
)

// report returns one of a machine on which all works but what is named.
func report(uid int, capable bool, missing ...string) *Report {
	r := &Report{Kernel: "Linux 6.12.57", Machine: "x86_64", UID: uid, Capable: capable, Confined: []string{}, TookMs: 92.4}
	x := &examination{report: r, outcomes: map[string]outcome{}}
	for _, p := range probes {
		o := outcome{Name: p.name, State: Works}
		if slices.Contains(missing, p.name) {
			o = outcome{Name: p.name, State: Missing, Detail: "refused"}
		}
		x.outcomes[p.name] = o
	}
	for i := range probes {
		if p := &probes[i]; x.blocker(p) != nil {
			x.outcomes[p.name] = outcome{Name: p.name, State: Missing, Detail: "refused, too"}
		}
	}
	r.Findings = x.findings()
	r.Ways = ways(r)
	return r
}

func TestWays(t *testing.T) {
	const all = "underlay-kernel underlay-userspace underlay-machine kernel-contestant ipv6"
	for _, tt := range []struct {
		name    string
		report  *Report
		want    string // the ways that work
		lacks   map[string]string
		runs    bool // something does
		because map[string]string
	}{
		{name: "root, all there", report: report(0, true), want: "node playground-root playground-rootless " + all, runs: true,
			because: map[string]string{"playground-rootless": "tried as user 65534"}},
		{name: "user, all there", report: report(1000, false, "capabilities"), want: "playground-rootless " + all, runs: true,
			lacks:   map[string]string{"node": "capabilities", "playground-root": "capabilities"},
			because: map[string]string{"playground-root": "`sudo middleway doctor`"}},
		{name: "root without tun", report: report(0, true, "tun-open", "tun-ordinary"), want: "underlay-kernel underlay-machine kernel-contestant ipv6",
			lacks:   map[string]string{"node": "tun-open tun-device tun-queues tun-persist tun-pod", "playground-rootless": "tun-ordinary", "underlay-userspace": "tap"},
			because: map[string]string{"node": "/dev/net/tun: refused"}},
		{name: "root's alone", report: report(0, true, "tun-ordinary"), want: "node playground-root " + all, runs: true,
			lacks: map[string]string{"playground-rootless": "tun-ordinary"}},
		{name: "no user namespaces, root", report: report(0, true, "user-namespace"), want: "node playground-root " + all, runs: true,
			lacks: map[string]string{"playground-rootless": "user-namespace"}},
		{name: "no user namespaces, user", report: report(1000, false, "capabilities", "user-namespace"), want: "underlay-machine",
			because: map[string]string{"playground-rootless": "user namespaces: refused"}},
		{name: "root of a container without rights", report: report(0, false, "capabilities", "user-namespace"), want: "underlay-machine",
			lacks: map[string]string{"playground-root": "capabilities"}},
		{name: "nothing but tun", report: report(0, true, "veth", "bridge", "vxlan", "nf-tables"),
			want: "node playground-root playground-rootless underlay-userspace underlay-machine ipv6", runs: true,
			lacks: map[string]string{"kernel-contestant": "veth bridge vxlan", "underlay-kernel": "veth bridge"}},
		{name: "neither veth nor tap", report: report(0, true, "veth", "tap"), want: "node playground-rootless underlay-machine ipv6", runs: true,
			lacks: map[string]string{"playground-root": "tap"}},
		{name: "no bridge", report: report(0, true, "bridge"),
			want: "node playground-root playground-rootless underlay-kernel underlay-userspace underlay-machine ipv6", runs: true,
			because: map[string]string{"underlay-kernel": "two nodes"}},
		{name: "port taken", report: report(0, true, "vxlan-port"), want: "playground-root playground-rootless " + all, runs: true,
			lacks: map[string]string{"node": "vxlan-port"}},
		{name: "no IPv6", report: report(0, true, "ipv6-socket", "ipv6-address"), runs: true,
			want:  "node playground-root playground-rootless underlay-kernel underlay-userspace underlay-machine kernel-contestant",
			lacks: map[string]string{"ipv6": "ipv6-socket ipv6-setting ipv6-address"}},
		{name: "what slows down", report: report(0, true, "tun-tso", "tun-uso", "tun-checksum", "udp-segment", "udp-gro", "udp-buffers", "proc-mount", "icmp-echo"),
			want: "node playground-root playground-rootless " + all, runs: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var works []string
			for _, w := range tt.report.Ways {
				if w.Works {
					works = append(works, w.Name)
				} else if w.Why == "" || len(w.Lacks) == 0 {
					t.Errorf("%s does not work, and nobody knows why", w.Name)
				}
				if want, ok := tt.lacks[w.Name]; ok && strings.Join(w.Lacks, " ") != want {
					t.Errorf("%s lacks %v, want %s", w.Name, w.Lacks, want)
				}
				if want := tt.because[w.Name]; !strings.Contains(w.Why, want) {
					t.Errorf("%s: %q is not in %q", w.Name, want, w.Why)
				}
			}
			if got := strings.Join(works, " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if tt.report.Works() != tt.runs {
				t.Errorf("something runs: got %v", tt.report.Works())
			}
		})
	}
}
