package service

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/tool"
)

// dig asks the cluster's DNS at its address of a family.
func dig(t *testing.T, from *lab.Namespace, f family, network, name string, qtype dnsmessage.Type) *tool.DNSAnswer {
	t.Helper()
	server := netip.AddrPortFrom(f.vip(10), 53)
	a, err := tool.Dig(t.Context(), name, qtype, []netip.AddrPort{server}, tool.DigConfig{Dial: from.Dial, TCP: network == "tcp", Tries: 5})
	if err != nil {
		t.Fatalf("%s asks for %s: %v", from.Name(), name, err)
	}
	return a
}

// mustResolve asks for a name's IPv4 address.
func mustResolve(t *testing.T, from *lab.Namespace, name, want string) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		got := dig(t, from, v4, network, name, dnsmessage.TypeA)
		if got.RCode != "NOERROR" || len(got.Answers) != 1 || got.Answers[0].Data != want {
			t.Errorf("%s from %s over %s: got %v, want %s", name, from.Name(), network, got, want)
		}
	}
}

// TestGetent: the C library of the machine resolves Services' names in a pod, with the resolv.conf that kubelet gives it.
func TestGetent(t *testing.T) {
	path, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("this machine has no getent")
	}
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	c.put(service("web", 1), onPod(2, c.pod(2, 1)))
	headless := service("all", 2)
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = "None", []string{"None"}
	c.must(c.folder.Put(headless))
	c.write(slicesOf(headless, onPod(1, c.pod(1, 1)), onPod(2, c.pod(2, 1)))...)
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
	for _, f := range families {
		text := "nameserver " + f.vip(10).String() + "\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
		c.must(os.WriteFile(resolvConf, []byte(text), 0o644))
		for _, from := range []*lab.Namespace{c.pod(1, 1).Namespace, c.pod(2, 1).Namespace, c.Nodes[0].Namespace} {
			for _, tt := range []struct{ args, want string }{
				{"ahostsv4 web", v4.vip(1).String()},
				{"ahostsv6 web", v6.vip(1).String()},
				{"ahosts web.default", v6.vip(1).String() + " " + v4.vip(1).String()},
				{"ahostsv4 web.default.svc.cluster.local", v4.vip(1).String()},
				{"ahostsv4 all", c.pod(1, 1).Addr4.String() + " " + c.pod(2, 1).Addr4.String()},
				{"hosts " + v4.vip(1).String(), v4.vip(1).String() + " web.default.svc.cluster.local"},
				{"hosts nobody", ""},
			} {
				eventually(t, "the names are known", func() bool {
					return dig(t, from, f, "udp", "all.default.svc.cluster.local.", dnsmessage.TypeA).RCode == "NOERROR"
				})
				if got := getent(t, from, path, resolvConf, strings.Fields(tt.args)); !sameWords(got, tt.want) {
					t.Errorf("%s in %s, asking over %s: got %q, want %q", tt.args, from.Name(), f.name, got, tt.want)
				}
			}
		}
	}
}

// getent returns the addresses and names of what getent prints, each once.
func getent(t *testing.T, ns *lab.Namespace, path, resolvConf string, args []string) string {
	t.Helper()
	p := lab.Exec(ns, append([]string{"getent"}, args...)...)
	p.Path, p.Isolated, p.Mounts = path, true, []lab.Mount{{Source: resolvConf, Target: "/etc/resolv.conf"}}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	select {
	case <-p.Done():
	case <-time.After(4 * patience):
		t.Fatalf("getent %q does not end", args)
	}
	var words []string
	for line := range strings.Lines(p.Tail()) {
		for _, w := range strings.Fields(line) {
			if w != "STREAM" && w != "DGRAM" && w != "RAW" && !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
	}
	return strings.Join(words, " ")
}

// sameWords reports whether all of want is there, and no other address.
func sameWords(got, want string) bool {
	addrs := func(text string) (all []string) {
		for _, w := range strings.Fields(text) {
			if _, err := netip.ParseAddr(w); err == nil {
				all = append(all, w)
			}
		}
		slices.Sort(all)
		return all
	}
	for _, w := range strings.Fields(want) {
		if !slices.Contains(strings.Fields(got), w) {
			return false
		}
	}
	return slices.Equal(addrs(got), addrs(want))
}
