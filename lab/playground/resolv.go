package playground

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
)

// clusterDomain is the domain of Services.
const clusterDomain = "cluster.local"

// resolver is what resolv.conf(5) holds.
type resolver struct {
	nameservers, searches, options []string
}

// Programs ask no more name servers (MAXNS of resolv.h), and Kubernetes no more domains.
const (
	maxNameservers = 3
	maxSearches    = 32
)

// podResolver makes a pod's resolver as kubelet does (GetPodDNS in pkg/kubelet/network/dns/dns.go); machine is that of the machine.
func podResolver(spec *corev1.PodSpec, namespace string, machine resolver) resolver {
	var r resolver
	policy := spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault, policy == corev1.DNSClusterFirst && spec.HostNetwork:
		r = machine
	default:
		r.nameservers = []string{lab.ClusterDNS4().String()}
		r.searches = append([]string{namespace + ".svc." + clusterDomain, "svc." + clusterDomain, clusterDomain}, machine.searches...)
		r.options = []string{"ndots:5"}
	}
	if c := spec.DNSConfig; c != nil {
		r.nameservers = append(slices.Clone(r.nameservers), c.Nameservers...)
		r.searches = append(slices.Clone(r.searches), c.Searches...)
		for _, o := range c.Options {
			r.options = withOption(r.options, o)
		}
	}
	r.nameservers, r.searches = unique(r.nameservers), unique(r.searches)
	r.nameservers = r.nameservers[:min(len(r.nameservers), maxNameservers)]
	r.searches = r.searches[:min(len(r.searches), maxSearches)]
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

// parseResolver reads a resolv.conf; as everywhere, the last line of a kind counts, and every nameserver.
func parseResolver(text string) (r resolver) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			r.nameservers = append(r.nameservers, words[1])
		case "search", "domain":
			r.searches = words[1:]
		case "options":
			r.options = words[1:]
		}
	}
	return r
}

func (r resolver) String() string {
	var b strings.Builder
	line := func(key string, words ...string) {
		if len(words) > 0 {
			b.WriteString(key + " " + strings.Join(words, " ") + "\n")
		}
	}
	line("search", r.searches...)
	for _, s := range r.nameservers {
		line("nameserver", s)
	}
	line("options", r.options...)
	return b.String()
}
