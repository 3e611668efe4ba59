package node

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
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
}

// checkServices checks the ranges of Services.
func (c *Config) checkServices() error {
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
