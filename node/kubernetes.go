package node

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
)

// Kubernetes says where the cluster's objects come from; at most one of Kubeconfig, InCluster and Folder. The node then takes from its Node
// object what the configuration leaves out: podCIDRs, address and nodeAddresses; and peers from the other Node objects, unless Peers names
// some. The cluster's Services are served.
type Kubernetes struct {
	// Kubeconfig is the absolute path of a kubeconfig file.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// InCluster: this process runs in a pod, whose service account it uses.
	InCluster bool `json:"inCluster,omitempty"`
	// Folder is the absolute path of a state folder (package k8s/folder), which somebody else writes.
	Folder string `json:"folder,omitempty"`
	// Server is the API server's address, for example https://192.168.254.11:6443. Default: what the kubeconfig file says; with
	// InCluster the address of the Service kubernetes, to which only kube-proxy on the node leads.
	Server string `json:"server,omitempty"`
}

// used reports whether there is a cluster.
func (k Kubernetes) used() bool { return k != Kubernetes{} }

// hasAPI reports whether there is an API server, which wants to hear of this node.
func (k Kubernetes) hasAPI() bool { return k.Kubeconfig != "" || k.InCluster }

func (k Kubernetes) check() error {
	given := 0
	for _, is := range []bool{k.Kubeconfig != "", k.InCluster, k.Folder != ""} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return errors.New("kubernetes: kubeconfig, inCluster and folder are three ways to the same objects; leave one")
	case given == 0 && k.Server != "":
		return errors.New("kubernetes.server: who this node is to the API server has to be said as well, by kubeconfig or inCluster")
	case k.Folder != "" && k.Server != "":
		return errors.New("kubernetes.server: with folder there is no API server; leave one of the two out")
	case k.Kubeconfig != "" && !filepath.IsAbs(k.Kubeconfig):
		return fmt.Errorf("kubernetes.kubeconfig: %q is not an absolute path like /etc/middleway/kubeconfig", k.Kubeconfig)
	case k.Folder != "" && !filepath.IsAbs(k.Folder):
		return fmt.Errorf("kubernetes.folder: %q is not an absolute path like /run/middleway-state", k.Folder)
	}
	if u, err := url.Parse(k.Server); k.Server != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "") {
		return fmt.Errorf("kubernetes.server: %q is not an address like https://192.168.254.11:6443", k.Server)
	}
	return nil
}

// Services configures the cluster's Services on this node. They come from Kubernetes.
type Services struct {
	// CIDRs are the ranges from which Services have their addresses, as the API server has them (--service-cluster-ip-range). The host
	// reaches them through its attachment, and packets to addresses in them that no Service has are dropped. Default none: then only
	// pods reach Services.
	CIDRs []netip.Prefix `json:"cidrs,omitempty"`
	// BesideKubeProxy: kube-proxy runs on the node as well and serves the host's own programs and NodePorts. Pods are served here all
	// the same, since their packets never meet the host's netfilter; there is no route for Services on the host's attachment. Default
	// false.
	BesideKubeProxy bool `json:"besideKubeProxy,omitempty"`
	// HealthAddress is where load balancers outside of the cluster ask whether this node serves (/healthz, /livez), which is where they
	// ask kube-proxy: an address with a port, or ":10256" for all addresses; "none": nowhere. Default :10256 where there is an API server
	// and BesideKubeProxy is not set, else none.
	HealthAddress string `json:"healthAddress,omitempty"`
	// ModeAddress is where programs of the node ask how Services are proxied (/proxyMode), by an address like that; "localhost" stands
	// for both loopback addresses. Default localhost:10249 where there is an API server and BesideKubeProxy is not set, else none.
	ModeAddress string `json:"modeAddress,omitempty"`
}

// The names of the fields, for messages.
const (
	healthField = "services.healthAddress"
	modeField   = "services.modeAddress"
)

// Where kube-proxy serves these by default (k8s.io/kubernetes, pkg/cluster/ports).
const (
	defaultHealthAddress = ":10256"
	defaultModeAddress   = "localhost:10249"
)

// setServices sets the defaults of what is asked of a proxy.
func (c *Config) setServices() {
	health, mode := defaultHealthAddress, defaultModeAddress
	if !c.Kubernetes.hasAPI() || c.Services.BesideKubeProxy {
		health, mode = noHTTP, noHTTP
	}
	c.Services.HealthAddress = cmp.Or(c.Services.HealthAddress, health)
	c.Services.ModeAddress = cmp.Or(c.Services.ModeAddress, mode)
}

// ownAddresses reads an address with a port at which this node serves: one, those of both families, or none.
func ownAddresses(field, text string) ([]netip.AddrPort, error) {
	if text == noHTTP || text == "" {
		return nil, nil
	}
	wrong := fmt.Errorf("%s: %q is not an address like 192.168.254.11:10256 or :10256; none turns it off", field, text)
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return nil, wrong
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 {
		return nil, wrong
	}
	var addrs []netip.Addr
	switch host {
	case "":
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case "localhost":
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	default:
		a, err := netip.ParseAddr(host)
		if err != nil || a.Is4In6() {
			return nil, wrong
		}
		addrs = []netip.Addr{a}
	}
	all := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		all[i] = netip.AddrPortFrom(a, uint16(port))
	}
	return all, nil
}

// checkOwnAddresses checks where this node answers as a proxy of Services.
func (c *Config) checkOwnAddresses() error {
	health, err := ownAddresses(healthField, c.Services.HealthAddress)
	mode, also := ownAddresses(modeField, c.Services.ModeAddress)
	if err := cmp.Or(err, also); err != nil {
		return err
	}
	if !c.Kubernetes.used() && len(health)+len(mode) > 0 {
		return fmt.Errorf("%s and %s: Services come from Kubernetes; say where that is by kubernetes", healthField, modeField)
	}
	if len(health) > 0 && len(mode) > 0 && health[0].Port() == mode[0].Port() {
		return fmt.Errorf("%s: it has the port of %s; choose another one", modeField, healthField)
	}
	return nil
}

// checkServices checks the ranges of Services, and where the node answers for them.
func (c *Config) checkServices() error {
	if err := c.checkOwnAddresses(); err != nil {
		return err
	}
	if !c.Kubernetes.used() && (len(c.Services.CIDRs) > 0 || c.Services.BesideKubeProxy) {
		return errors.New("services: they come from Kubernetes; say where that is by kubernetes")
	}
	for i, r := range c.Services.CIDRs {
		where := fmt.Sprintf("services.cidrs[%d]", i)
		if err := checkRange(where, r); err != nil {
			return err
		}
		for _, p := range c.podRanges() {
			if r.Overlaps(p) {
				return fmt.Errorf("%s: %v overlaps %v, the range of a node's pods; Services need a range of their own", where, r, p)
			}
		}
		if a, ok := c.nodeWithin(r); ok {
			return fmt.Errorf("%s: %v contains %v of a node; Services need a range of their own", where, r, a)
		}
	}
	return nil
}
