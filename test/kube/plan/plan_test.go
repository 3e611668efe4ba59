package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		family                     Family
		node2, pods, services, dns string
		server                     string
		resolver                   string
	}{
		{IPv4, "192.168.254.12", "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10", "https://192.168.254.11:6443", "192.168.254.254"},
		{IPv6, "fd00:254::12", "fd00:10:244::/56", "fd00:10:96::/112", "fd00:10:96::a", "https://[fd00:254::11]:6443", "fd00:254::254"},
		{Dual, "192.168.254.12,fd00:254::12", "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112", "10.96.0.10,fd00:10:96::a", "https://192.168.254.11:6443", "192.168.254.254"},
	} {
		t.Run(string(c.family), func(t *testing.T) {
			p := Plan{Name: "kube", Nodes: 2, Family: c.family}
			got := []string{Join(p.NodeAddrs(2)), Join(p.PodCIDRs()), Join(p.ServiceCIDRs()), Join(p.DNSService()), p.Server(), p.Resolver().String()}
			if diff := cmp.Diff([]string{c.node2, c.pods, c.services, c.dns, c.server, c.resolver}, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAddressesAreDistinct(t *testing.T) {
	p := Plan{Name: "kube", Nodes: MaxNodes, Family: Dual}
	seen := map[string]bool{}
	for _, a := range p.OutsideAddrs() {
		seen[a.Addr().String()] = true
	}
	for i := 1; i <= p.Nodes; i++ {
		for _, a := range p.Interface(i) {
			if seen[a.Addr().String()] {
				t.Errorf("node %d: %s is another's too", i, a)
			}
			seen[a.Addr().String()] = true
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		plan Plan
		want string // part of the error; empty: none
	}{
		{Plan{"kube", 2, IPv4}, ""},
		{Plan{"my-cluster2", 1, Dual}, ""},
		{Plan{"", 2, IPv4}, "name"},
		{Plan{"Kube", 2, IPv4}, "name"},
		{Plan{"kube-", 2, IPv4}, "name"},
		{Plan{strings.Repeat("k", 41), 2, IPv4}, "name"},
		{Plan{"kube", 0, IPv4}, "nodes"},
		{Plan{"kube", MaxNodes + 1, IPv4}, "nodes"},
		{Plan{"kube", 2, "both"}, "family"},
	} {
		err := c.plan.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.plan, err, c.want)
		}
	}
}

func TestOwns(t *testing.T) {
	p := Plan{Name: "a", Nodes: 1, Family: IPv4}
	for netns, want := range map[string]bool{
		"a-1": true, "a-12": true, "a-outside": true,
		"a": false, "a-": false, "a-0": false, "a-b-1": false, "ab-1": false, "a-outside2": false, "a-1x": false,
	} {
		if got := p.Owns(netns); got != want {
			t.Errorf("Owns(%q) = %v, want %v", netns, got, want)
		}
	}
}

func TestHosts(t *testing.T) {
	want := "127.0.0.1 localhost\n::1 localhost\n192.168.254.11 k-1\nfd00:254::11 k-1\n"
	if got := (Plan{Name: "k", Nodes: 1, Family: Dual}).Hosts(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
