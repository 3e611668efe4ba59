// Package plan says how a test cluster is named and numbered: a pure function of its name, its number of nodes and its
// address families. All addresses live inside the cluster's own network namespaces, so that every cluster has the same
// ones and several stand side by side on one machine.
//
//	NAME-outside  192.168.254.254  fd00:254::254   a bridge to all nodes; clients and the nodes' DNS server
//	NAME-1        192.168.254.11   fd00:254::11    the control plane, and pods
//	NAME-2        192.168.254.12   fd00:254::12    pods
package plan

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Family is which address families pods, Services and nodes have.
type Family string

// The families a cluster may have. Dual has IPv4 first.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual"
)

// MaxNodes is how many nodes the range of node addresses has room for, with the same last digits in both families.
const MaxNodes = 88

// A Plan is a cluster's names and addresses.
type Plan struct {
	Name   string `json:"name"`
	Nodes  int    `json:"nodes"`
	Family Family `json:"family"`
}

// A name becomes a host's name (RFC 1123), a namespace's and a folder's; 40 characters leave room for unix sockets below it.
var validName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$`)

// Check says what is wrong with the plan, as one sentence for who wrote it.
func (p Plan) Check() error {
	switch {
	case !validName.MatchString(p.Name):
		return fmt.Errorf("the cluster's name %q must be of at most 40 small letters, digits and hyphens and begin with a letter", p.Name)
	case p.Nodes < 1 || p.Nodes > MaxNodes:
		return fmt.Errorf("a cluster has 1 to %d nodes, not %d", MaxNodes, p.Nodes)
	case p.Family != IPv4 && p.Family != IPv6 && p.Family != Dual:
		return fmt.Errorf("the family is ipv4, dual or ipv6, not %q", p.Family)
	}
	return nil
}

// Node is the name of node i, counted from 1: of its Node object, its host name and its network namespace.
func (p Plan) Node(i int) string { return fmt.Sprintf("%s-%d", p.Name, i) }

// Outside is the name of the network namespace that stands for the world around the cluster.
func (p Plan) Outside() string { return p.Name + "-outside" }

// Owns says whether a network namespace of that name belongs to a cluster of this name, whatever its number of nodes.
func (p Plan) Owns(netns string) bool {
	rest, ok := strings.CutPrefix(netns, p.Name+"-")
	return ok && (rest == "outside" || regexp.MustCompile(`^[1-9][0-9]?$`).MatchString(rest))
}

// pick returns what the family has of one value of each.
func pick[T any](f Family, v4, v6 T) []T {
	switch f {
	case IPv4:
		return []T{v4}
	case IPv6:
		return []T{v6}
	default:
		return []T{v4, v6}
	}
}

// Interface is the addresses of node i's interface with the length of their network. It has both families always: which of
// them are the cluster's is said by NodeAddrs.
func (p Plan) Interface(i int) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("192.168.254.%d/24", 10+i)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:254::%d/64", 10+i)),
	}
}

// NodeAddrs is the addresses of node i that the cluster knows, the primary one first.
func (p Plan) NodeAddrs(i int) []netip.Addr {
	both := p.Interface(i)
	return pick(p.Family, both[0].Addr(), both[1].Addr())
}

// OutsideAddrs is the addresses of the outside on its bridge, with the length of their network: the nodes' default routers.
func (p Plan) OutsideAddrs() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("192.168.254.254/24"), netip.MustParsePrefix("fd00:254::254/64")}
}

// Resolver is the nodes' DNS server, which runs outside.
func (p Plan) Resolver() netip.Addr {
	both := p.OutsideAddrs()
	return pick(p.Family, both[0].Addr(), both[1].Addr())[0]
}

// PodCIDRs is the ranges of all nodes' pods, each at the width that the controller manager divides among nodes.
func (p Plan) PodCIDRs() []string { return pick(p.Family, "10.244.0.0/16", "fd00:10:244::/56") }

// ServiceCIDRs is the API server's --service-cluster-ip-range.
func (p Plan) ServiceCIDRs() []string { return pick(p.Family, "10.96.0.0/16", "fd00:10:96::/112") }

// APIService is the address of the Service kubernetes: the first of the range of Services.
func (p Plan) APIService() []netip.Addr {
	return pick(p.Family, netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:10:96::1"))
}

// DNSService is the address by which pods ask for names: kubelet's clusterDNS, as kubeadm chooses it.
func (p Plan) DNSService() []netip.Addr {
	return pick(p.Family, netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::a"))
}

// APIPort is the TCP port of the API server.
const APIPort = 6443

// APIServer is where the API server listens, on the network of node 1.
func (p Plan) APIServer() netip.AddrPort { return netip.AddrPortFrom(p.NodeAddrs(1)[0], APIPort) }

// Server is the API server's URL for clients.
func (p Plan) Server() string { return "https://" + p.APIServer().String() }

// Hosts is the nodes' /etc/hosts.
func (p Plan) Hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for i := 1; i <= p.Nodes; i++ {
		for _, a := range p.NodeAddrs(i) {
			fmt.Fprintf(&b, "%s %s\n", a, p.Node(i))
		}
	}
	return b.String()
}

// Join writes addresses or ranges as the list that Kubernetes' flags take.
func Join[T any](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ",")
}
