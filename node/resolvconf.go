package node

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// Paths of resolv.conf: the node's own, and that in which systemd-resolved names the servers that it asks itself.
const (
	defaultResolvConf = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// noResolvConf in place of a path says that there is no such file.
const noResolvConf = "none"

// resolvConfInterval is how often it is looked for changes.
const resolvConfInterval = 5 * time.Second

// maxNameservers are as many as resolvers take (resolv.conf(5)).
const maxNameservers = 3

// resolvConf is where upstreams are taken from. The zero resolvConf names none.
type resolvConf struct {
	paths []string     // the first one with servers that are not on the loopback counts, else the first
	ours  []netip.Addr // the cluster's DNS itself, which would lead back here
}

func newResolvConf(path string, ours []netip.Addr) resolvConf {
	switch path {
	case noResolvConf:
		return resolvConf{}
	case "":
		return resolvConf{[]string{defaultResolvConf, systemdResolvConf}, ours}
	}
	return resolvConf{[]string{path}, ours}
}

// read returns the servers; none if there is no file.
func (r resolvConf) read() (servers []netip.AddrPort) {
	for _, path := range r.paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		found := slices.DeleteFunc(nameservers(string(b)), func(a netip.AddrPort) bool { return slices.Contains(r.ours, a.Addr()) })
		if servers == nil {
			servers = found
		}
		if slices.ContainsFunc(found, func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() }) {
			return found
		}
	}
	return servers
}

// nameservers returns the servers that a text as of resolv.conf(5) names. Lines that are no such are left out, as resolvers do.
func nameservers(text string) (servers []netip.AddrPort) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err != nil || a.IsUnspecified() || a.IsMulticast() {
			continue
		}
		if server := netip.AddrPortFrom(a.Unmap(), dnsPort); len(servers) < maxNameservers && !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	return servers
}

// followResolvConf asks the servers that resolv.conf names, also when it changes, until ctx ends. A file that is gone or names none changes
// nothing: it may be about to be written.
func (n *Node) followResolvConf(ctx context.Context) error {
	if len(n.dns.resolvConf.paths) == 0 {
		return nil
	}
	tick := time.NewTicker(resolvConfInterval)
	defer tick.Stop()
	before := n.dns.resolvConf.read()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := n.dns.resolvConf.read()
		if len(now) == 0 || slices.Equal(now, before) {
			continue
		}
		before = now
		if err := n.dns.server.SetUpstreams(now); err != nil {
			n.log.Warn("the dns servers of resolv.conf are not taken", "err", err)
			continue
		}
		n.log.Info("dns upstreams have changed", "addrs", now)
	}
}
