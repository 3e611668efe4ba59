package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Bounds of resolv.conf, which Kubernetes has too (pkg/apis/core/validation).
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchBytes = 2048
)

// checkNames checks what a pod calls itself.
func (p *Pod) checkNames() error {
	for _, f := range []struct{ field, value string }{{"spec.hostname", p.Spec.Hostname}, {"spec.subdomain", p.Spec.Subdomain}} {
		if f.value != "" && validation.IsDNS1123Label(f.value) != nil {
			return p.Errorf(f.field, "%q is no name for a host; take at most 63 %s, for example web-1", f.value, labelLetters)
		}
	}
	override := p.Spec.HostnameOverride
	switch {
	case override == nil:
	case validation.IsDNS1123Subdomain(*override) != nil || len(*override) > maxHostname:
		return p.Errorf("spec.hostnameOverride", "%q is no name for a host; take at most %d %s and dots, for example web-1", *override, maxHostname, labelLetters)
	case p.Spec.HostNetwork:
		return p.Errorf("spec.hostnameOverride", "hostNetwork gives the pod the node's name; keep one of them")
	case p.Spec.SetHostnameAsFQDN != nil && *p.Spec.SetHostnameAsFQDN:
		return p.Errorf("spec.hostnameOverride", "setHostnameAsFQDN says another name; keep one of them")
	}
	for i, alias := range p.Spec.HostAliases {
		at := fmt.Sprintf("spec.hostAliases[%d]", i)
		if _, err := netip.ParseAddr(alias.IP); err != nil {
			return p.Errorf(at+".ip", "%q is no IP address", alias.IP)
		}
		for j, name := range alias.Hostnames {
			if validation.IsDNS1123Subdomain(name) != nil {
				return p.Errorf(fmt.Sprintf("%s.hostnames[%d]", at, j), "%q is no name for a host; take %s and dots, for example db.example.org", name, labelLetters)
			}
		}
	}
	return nil
}

// maxHostname is the longest host name that Linux takes, in bytes.
const maxHostname = 64

// checkDNS checks what goes into resolv.conf.
func (p *Pod) checkDNS() error {
	policies := []corev1.DNSPolicy{corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault, corev1.DNSNone}
	if !slices.Contains(policies, p.Spec.DNSPolicy) {
		return p.Errorf("spec.dnsPolicy", "%q is none; want ClusterFirst, ClusterFirstWithHostNet, Default or None", p.Spec.DNSPolicy)
	}
	c := p.Spec.DNSConfig
	if p.Spec.DNSPolicy == corev1.DNSNone && (c == nil || len(c.Nameservers) == 0) {
		return p.Errorf("spec.dnsConfig.nameservers", "dnsPolicy None wants at least one name server")
	}
	if c == nil {
		return nil
	}
	if len(c.Nameservers) > maxNameservers {
		return p.Errorf("spec.dnsConfig.nameservers", "%d are more than %d, which programs ask", len(c.Nameservers), maxNameservers)
	}
	for i, s := range c.Nameservers {
		if _, err := netip.ParseAddr(s); err != nil {
			return p.Errorf(fmt.Sprintf("spec.dnsConfig.nameservers[%d]", i), "%q is no IP address", s)
		}
	}
	if len(c.Searches) > maxSearches || len(strings.Join(c.Searches, " ")) > maxSearchBytes {
		return p.Errorf("spec.dnsConfig.searches", "more than %d domains, or %d bytes of them", maxSearches, maxSearchBytes)
	}
	for i, s := range c.Searches {
		if s != "." && validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(s, ".")) != nil {
			return p.Errorf(fmt.Sprintf("spec.dnsConfig.searches[%d]", i), "%q is no domain; take %s and dots, for example example.org", s, labelLetters)
		}
	}
	for i, o := range c.Options {
		at := fmt.Sprintf("spec.dnsConfig.options[%d]", i)
		if o.Name == "" {
			return p.Errorf(at+".name", "an option needs a name, for example ndots")
		}
		if strings.ContainsAny(o.Name, " \t\n\x00") || o.Value != nil && strings.ContainsAny(*o.Value, " \t\n\x00") {
			return p.Errorf(at, "an option is one word")
		}
	}
	return nil
}
