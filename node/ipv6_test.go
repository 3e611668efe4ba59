package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is IPv6 is left out everywhere, and the caller's configuration stays what it was.
func TestLeaveOutIPv6(t *testing.T) {
	given, err := ParseConfig([]byte(`
name: node-1
address: 192.168.254.11
podCIDRs: ["fd00:10:244:1::/64", 10.244.1.0/24]
nodeAddresses: ["fd00:254::11", 192.168.254.11]
clusterCIDRs: ["fd00:10:96::/112", 10.96.0.0/16]
peers: [{name: node-2, address: 192.168.254.12, podCIDRs: ["fd00:10:244:2::/64", 10.244.2.0/24]}]
pods: [{name: default/web, netns: /n, addresses: ["fd00:10:244:1::2", 10.244.1.2]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	given.Peers = append(given.Peers, Peer{
		Name: "node-3", Address: netip.MustParseAddr("192.168.254.13"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:10:244:3::/64")},
	})
	c := given
	if err := c.leaveOutIPv6("there is none"); err != nil {
		t.Fatal(err)
	}
	got := []string{cidrs(c.PodCIDRs), cidrs(c.ClusterCIDRs), addrs(c.NodeAddresses), addrs(c.Pods[0].Addresses), c.Peers[0].Name, cidrs(c.Peers[0].PodCIDRs)}
	want := []string{"10.244.1.0/24", "10.96.0.0/16", "192.168.254.11", "10.244.1.2", "node-2", "10.244.2.0/24"}
	if diff := cmp.Diff(want, got); diff != "" || len(c.Peers) != 1 {
		t.Errorf("%d peers, -want +got\n%s", len(c.Peers), diff)
	}
	if err := c.check(); err != nil {
		t.Errorf("what is left does not work: %v", err)
	}
	if len(given.PodCIDRs) != 2 || len(given.Pods[0].Addresses) != 2 || len(given.Peers) != 2 || len(given.NodeAddresses) != 2 {
		t.Errorf("the given configuration changed: %+v", given)
	}
}

func cidrs(list []netip.Prefix) string {
	var names []string
	for _, p := range list {
		names = append(names, p.String())
	}
	return strings.Join(names, " ")
}

func addrs(list []netip.Addr) string {
	var names []string
	for _, a := range list {
		names = append(names, a.String())
	}
	return strings.Join(names, " ")
}

func TestLeaveOutIPv6Errors(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"IPv6 alone", "name: n\naddress: 192.168.254.11\npodCIDRs: [\"fd00:10:244:1::/64\"]", "podCIDRs: [fd00:10:244:1::/64] is IPv6, but there is none; add an IPv4 range"},
		{"IPv6 outside", "name: n\naddress: \"fd00:254::11\"\npodCIDRs: [10.244.1.0/24]", "address: IPv6 is wanted between the nodes, but there is none"},
		{"IPv6 outside, to be found", found + "underlay: {ipv6: true}", "address: IPv6 is wanted between the nodes"},
		{"IPv6 pod", "name: n\naddress: 192.168.254.11\npodCIDRs: [10.244.1.0/24, \"fd00:10:244:1::/64\"]\npods: [{name: a, netns: /n, addresses: [\"fd00:10:244:1::2\"]}]",
			"pods[0].addresses: [fd00:10:244:1::2] is IPv6"},
	} {
		c, err := ParseConfig([]byte(tt.yaml))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if err := c.leaveOutIPv6("there is none"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	// Where the sockets are a parent's, its kernel says whether it has IPv6.
	c, err := ParseConfig([]byte(found + "underlay: {ipv6: true}\nsockets: /s"))
	if err == nil {
		err = c.leaveOutIPv6("there is none")
	}
	if err != nil {
		t.Error(err)
	}
}
