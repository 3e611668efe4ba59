package playground

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/tool"
)

// clusterDomain is the domain of Services.
const clusterDomain = "cluster.local"

// Programs ask no more name servers (MAXNS of resolv.h), and Kubernetes no more domains.
const (
	maxNameservers = 3
	maxSearches    = 32
)

// podResolver makes a pod's resolver as kubelet does (GetPodDNS in pkg/kubelet/network/dns/dns.go); machine is that of the machine.
func podResolver(spec *corev1.PodSpec, namespace string, machine tool.ResolvConf) tool.ResolvConf {
	var r tool.ResolvConf
	policy := spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault, policy == corev1.DNSClusterFirst && spec.HostNetwork:
		r = machine
	default:
		r.Nameservers = []string{lab.ClusterDNS4().String()}
		r.Search = append([]string{namespace + ".svc." + clusterDomain, "svc." + clusterDomain, clusterDomain}, machine.Search...)
		r.Options = []string{"ndots:5"}
	}
	if c := spec.DNSConfig; c != nil {
		r.Nameservers = append(slices.Clone(r.Nameservers), c.Nameservers...)
		r.Search = append(slices.Clone(r.Search), c.Searches...)
		for _, o := range c.Options {
			r.Options = withOption(r.Options, o)
		}
	}
	r.Nameservers, r.Search = unique(r.Nameservers), unique(r.Search)
	r.Nameservers = r.Nameservers[:min(len(r.Nameservers), maxNameservers)]
	r.Search = r.Search[:min(len(r.Search), maxSearches)]
	return r
}

// withOption adds an option, in the place of one of its name.
func withOption(options []string, added corev1.PodDNSConfigOption) []string {
	text := added.Name
	if added.Value != nil && *added.Value != "" {
		text += ":" + *added.Value
	}
	options = slices.Clone(options)
	for i, o := range options {
		if name, _, _ := strings.Cut(o, ":"); name == added.Name {
			options[i] = text
			return options
		}
	}
	return append(options, text)
}

// unique keeps the first of equal words.
func unique(words []string) []string {
	var kept []string
	for _, w := range words {
		if !slices.Contains(kept, w) {
			kept = append(kept, w)
		}
	}
	return kept
}
