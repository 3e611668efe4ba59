package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/plan"
	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// Reference is what clusters commonly have: kube-proxy, CoreDNS, and pods on veth pairs.
type Reference struct {
	// Flannel carries pods' packets by VXLAN, behind a bridge; else they are routed between nodes, as kindnet has it.
	Flannel bool
	// ProxyMode is kube-proxy's: nftables (default) or iptables.
	ProxyMode string
}

var _ cluster.Network = Reference{}

// Install applies CoreDNS.
func (r Reference) Install(ctx context.Context, c *cluster.Cluster) error {
	return applyCoreDNS(ctx, c)
}

// Join installs the CNI plugins with their configuration, and starts flanneld and kube-proxy.
func (r Reference) Join(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error {
	if err := n.InstallPlugins(c.Programs.CNI, "loopback", "host-local", "portmap", "ptp", "bridge"); err != nil {
		return err
	}
	if err := r.joinPods(ctx, c, n); err != nil {
		return err
	}
	mode := r.ProxyMode
	if mode == "" {
		mode = "nftables"
	}
	return runKubeProxy(ctx, c, n, mode)
}

// joinPods makes pods of the node reachable, and lets them out.
func (r Reference) joinPods(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error {
	if r.Flannel {
		mtu, err := runFlannel(ctx, c, n)
		if err != nil {
			return err
		}
		ipam := hostLocal(n.PodCIDRs)
		delete(ipam, "dataDir") // /var/lib/cni/networks, as flannel's own configuration has it
		return writeConflist(n, flannelConflist, map[string]any{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": mtu, "ipam": ipam})
	}
	for _, other := range c.AllNodes() {
		if other.Name == n.Name {
			continue
		}
		for _, cidr := range n.PodCIDRs {
			to, err := netip.ParsePrefix(cidr)
			if err != nil {
				return err
			}
			if err := sandbox.Route(other.Name, to, addrOfFamily(c.Interface(n.Number), to.Addr())); err != nil {
				return err
			}
		}
	}
	cmd, err := n.Command(ctx, "nft", "-f", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(masquerade(c.Plan))
	if _, err := cluster.Output(cmd, nil); err != nil {
		return fmt.Errorf("nft on %s: %w", n.Name, err)
	}
	return writeConflist(n, "10-reference.conflist", map[string]any{"type": "ptp", "ipMasq": false, "ipam": hostLocal(n.PodCIDRs)})
}

// Ready waits for CoreDNS.
func (r Reference) Ready(ctx context.Context, c *cluster.Cluster) error {
	return rolledOut(ctx, c, "kube-system", "deployment/coredns")
}

func addrOfFamily(all []netip.Prefix, like netip.Addr) netip.Addr {
	for _, p := range all {
		if p.Addr().Is4() == like.Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// hostLocal is the configuration of the IPAM plugin: the node's ranges, and default routes of their families.
func hostLocal(podCIDRs []string) map[string]any {
	var ranges []any
	var routes []any
	for _, cidr := range podCIDRs {
		to := "0.0.0.0/0"
		if strings.Contains(cidr, ":") {
			to = "::/0"
		}
		ranges = append(ranges, []any{map[string]any{"subnet": cidr}})
		routes = append(routes, map[string]any{"dst": to})
	}
	return map[string]any{"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges, "routes": routes}
}

// flannelConflist is the name of flannel's own CNI network configuration.
const flannelConflist = "10-flannel.conflist"

// writeConflist writes the CNI network configuration of the node, after which it is Ready.
func writeConflist(n *cluster.Node, name string, plugin map[string]any) error {
	text, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "reference",
		"plugins":    []any{plugin, map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}, "snat": true}},
	})
	if err != nil {
		return err
	}
	return n.WriteFile("/etc/cni/net.d/"+name, string(text))
}

// masquerade is nft rules that give pods the node's address toward whatever is neither a pod nor a node. The outside is no
// node, though it is on their network.
func masquerade(p plan.Plan) string {
	var b strings.Builder
	b.WriteString("table inet reference {\n\tchain post {\n\t\ttype nat hook postrouting priority srcnat\n")
	nodes := p.Interface(1)
	last := p.Interface(plan.MaxNodes)
	for _, cidr := range p.PodCIDRs() {
		ip, i := "ip", 0
		if strings.Contains(cidr, ":") {
			ip, i = "ip6", 1
		}
		fmt.Fprintf(&b, "\t\t%s saddr %s %s daddr != { %s, %s-%s } masquerade\n", ip, cidr, ip, cidr, nodes[i].Addr(), last[i].Addr())
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

var flannelMTU = regexp.MustCompile(`(?m)^FLANNEL_MTU=(\d+)$`)

// runFlannel starts flanneld with the VXLAN backend and returns the MTU that it gives to pods.
func runFlannel(ctx context.Context, c *cluster.Cluster, n *cluster.Node) (mtu int, err error) {
	config, err := flannelConfig(c.Plan)
	if err != nil {
		return 0, err
	}
	if err := n.WriteFile("/etc/kubernetes/flannel.json", config); err != nil {
		return 0, err
	}
	subnet := "/etc/kubernetes/flannel.env"
	if err := os.Remove(n.Inside(subnet)); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier flannel
		return 0, err
	}
	err = n.Run(ctx, node.Component{Name: "flanneld", Env: []string{"NODE_NAME=" + n.Name}, Args: []string{c.Program("flanneld"),
		"--kube-subnet-mgr", "--kubeconfig-file=" + c.Kubeconfig(), "--net-config-path=/etc/kubernetes/flannel.json",
		"--subnet-file=" + subnet, "--iface=eth0", "--ip-masq"}})
	if err != nil {
		return 0, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		text, err := os.ReadFile(n.Inside(subnet))
		if m := flannelMTU.FindSubmatch(text); m != nil {
			return strconv.Atoi(string(m[1]))
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("flanneld on %s wrote no %s within a minute: %w; %s:\n%s", n.Name, subnet, err, n.Log("flanneld"), node.Tail(n.Log("flanneld"), 10))
		}
	}
}

// flannelConfig is flannel's net-conf.json (https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md).
func flannelConfig(p plan.Plan) (string, error) {
	config := map[string]any{"EnableIPv4": p.Family != plan.IPv6, "EnableIPv6": p.Family != plan.IPv4, "Backend": map[string]any{"Type": "vxlan"}}
	for _, cidr := range p.PodCIDRs() {
		if strings.Contains(cidr, ":") {
			config["IPv6Network"] = cidr
		} else {
			config["Network"] = cidr
		}
	}
	text, err := json.Marshal(config)
	return string(text), err
}
