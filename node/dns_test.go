package node

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/cni/ipam"
)

// The namespace of a pod is known while it is attached, and no longer: its addresses may be another pod's next.
func TestNamespaceOf(t *testing.T) {
	c, err := ParseConfig([]byte(inCluster + "services: {cidrs: [10.96.0.0/16]}\ndns: {autopath: true, resolvConf: none}"))
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{config: c, log: slog.New(slog.DiscardHandler)}
	if err := n.openDNS(); err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr("10.244.1.5")
	lease := func(namespace string) ipam.Lease {
		return ipam.Lease{Pod: ipam.Pod{Namespace: namespace, Name: "web"}, Addrs: []netip.Addr{a}}
	}
	is := func(want string) {
		t.Helper()
		if got, ok := n.namespaceOf(a); got != want || ok != (want != "") {
			t.Errorf("got %q, %v, want %q", got, ok, want)
		}
	}
	is("")
	n.attached(lease("default"))
	is("default")
	n.detached(lease("default"))
	is("")
	n.attached(lease("data"))
	is("data")
	n.attached(lease("")) // a runtime that tells no pod
	is("")
	if allocs := testing.AllocsPerRun(100, func() { n.namespaceOf(a) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
