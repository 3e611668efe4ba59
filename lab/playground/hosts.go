package playground

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// maxPodHostname is where kubelet cuts a pod's name for its host name.
const maxPodHostname = 63

// maxHostname is the longest host name of Linux, in bytes.
const maxHostname = 64

// names are what a pod is called in its own eyes.
type names struct {
	host   string // what hostname(1) says
	short  string // the host name without a domain
	domain string // "" for none
}

// namesOf makes a pod's names as kubelet does (GeneratePodHostNameAndDomain in pkg/kubelet/kubelet_pods.go).
func namesOf(m *manifest.Pod, node string) (names, error) {
	if m.Spec.HostNetwork {
		return names{host: node, short: node}, nil
	}
	if override := m.Spec.HostnameOverride; override != nil {
		return names{host: *override, short: *override}, nil
	}
	n := names{short: m.Name}
	if m.Spec.Hostname != "" {
		n.short = m.Spec.Hostname
	}
	if len(n.short) > maxPodHostname {
		n.short = strings.TrimRight(n.short[:maxPodHostname], "-.")
	}
	n.host = n.short
	if m.Spec.Subdomain != "" {
		n.domain = fmt.Sprintf("%s.%s.svc.%s", m.Spec.Subdomain, m.Namespace, clusterDomain)
	}
	if as := m.Spec.SetHostnameAsFQDN; as != nil && *as && n.domain != "" {
		if n.host = n.short + "." + n.domain; len(n.host) > maxHostname {
			return names{}, m.Errorf("spec.setHostnameAsFQDN", "%s is longer than the %d bytes that Linux takes as a host name", n.host, maxHostname)
		}
	}
	return n, nil
}

// hostsOf returns a pod's /etc/hosts as kubelet makes it (managedHostsFileContent in pkg/kubelet/kubelet_pods.go).
func hostsOf(addrs []netip.Addr, n names, aliases []corev1.HostAlias) string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n" +
		"127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	for _, a := range addrs {
		b.WriteString(a.String() + "\t")
		if n.domain != "" {
			b.WriteString(n.short + "." + n.domain + "\t")
		}
		b.WriteString(n.short + "\n")
	}
	b.WriteString(aliasLines(aliases))
	return b.String()
}

// nodeHosts returns the /etc/hosts of a pod with hostNetwork; machine is that of the machine.
func nodeHosts(machine string, aliases []corev1.HostAlias) string {
	return "# Kubernetes-managed hosts file (host network).\n" + machine + aliasLines(aliases)
}

func aliasLines(aliases []corev1.HostAlias) string {
	if len(aliases) == 0 {
		return ""
	}
	lines := "\n# Entries added by HostAliases.\n"
	for _, a := range aliases {
		lines += a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n"
	}
	return lines
}
