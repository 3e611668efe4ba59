package trace

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/node"
)

// inKubernetes is a real cluster.
type inKubernetes struct{ *remote.Cluster }

var _ Cluster = inKubernetes{}

// Kubernetes returns a real cluster, whose daemons are asked through its API server.
func Kubernetes(c *remote.Cluster) Cluster { return inKubernetes{c} }

func (c inKubernetes) Pod(ctx context.Context, namespace, name string) (*Pod, error) {
	p, err := c.Cluster.Pod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	pod := &Pod{
		Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, Reason: reasonOf(p),
		ResolvConf: func(dns node.DNSStatus) (tool.ResolvConf, error) { return resolvConf(p, dns), nil },
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			pod.IPs = append(pod.IPs, a)
		}
	}
	return pod, nil
}

// reasonOf says why a pod is on no node or has no address.
func reasonOf(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return c.Message
		}
	}
	return "its phase is " + string(p.Status.Phase)
}

// resolvConf is what a kubelet writes for a pod (pkg/kubelet/network/dns), but for search domains of the node's own, which nobody here
// knows and which come last.
func resolvConf(p *corev1.Pod, dns node.DNSStatus) tool.ResolvConf {
	var c tool.ResolvConf
	policy := p.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirstWithHostNet || !p.Spec.HostNetwork && (policy == corev1.DNSClusterFirst || policy == "") {
		for _, a := range dns.Addresses {
			c.Nameservers = append(c.Nameservers, a.String())
		}
		c.Search = []string{p.Namespace + ".svc." + dns.Domain, "svc." + dns.Domain, dns.Domain}
		c.Options = []string{"ndots:5"}
	}
	if own := p.Spec.DNSConfig; own != nil {
		c.Nameservers = append(c.Nameservers, own.Nameservers...)
		for _, s := range own.Searches {
			if !slices.Contains(c.Search, s) {
				c.Search = append(c.Search, s)
			}
		}
		for _, o := range own.Options {
			if o.Value == nil {
				c.Options = append(c.Options, o.Name)
			} else {
				c.Options = append(c.Options, o.Name+":"+*o.Value)
			}
		}
	}
	return c
}

func (c inKubernetes) Daemon(ctx context.Context, name string, addr netip.Addr) (*node.Client, error) {
	if name != "" {
		d, err := c.Cluster.Daemon(ctx, name)
		return node.Over(d.Words(), c.Dialer(d)), err
	}
	all, err := c.Daemons(ctx)
	for _, d := range all {
		if slices.Contains(d.Addresses, addr) {
			return node.Over(d.Words(), c.Dialer(d)), nil
		}
	}
	if err == nil {
		err = errors.New("it is no node with a pod of middleway")
	}
	return nil, err
}
